"""AdamW on float32 master weights of a model that may compute in bfloat16."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from rlhf.errors import GuardStop
from rlhf.training.moments import AdamW, blank_state, forms_of_state, in_8_bits
from rlhf.training.processes import Processes
from rlhf.training.schedule import learning_rate_factor
from rlhf.training.sharding.weights import Weights
from rlhf.training.storage.schema import TensorForm


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """The `optimizer` section of a config."""

    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"]
    warmup_fraction: float
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    max_grad_norm: float
    moments: Literal["float32", "8bit"] = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters that are clipped together and share their settings."""

    name: str
    """What the learning rate and the gradient norm are logged under."""
    parameters: Mapping[str, nn.Parameter]
    """Name in the module: parameter."""
    settings: OptimizerSettings


class Optimizer:
    """AdamW over parameter groups, each clipped on its own norm and following its own schedule."""

    def __init__(
        self, weights: Weights, groups: Sequence[ParameterGroup], num_updates: int, processes: Processes
    ) -> None:
        """Make the optimizer.

        Args:
            weights: holds a master for every parameter of the groups.
            groups: what is trained, and how.
            num_updates: optimizer steps of the whole run, which the schedules span.
            processes: their gradients are summed.
        """
        self.weights = weights
        self.groups = groups
        self.num_updates = num_updates
        self.num_done = 0
        self.scale = 1.0
        """Multiplies the learning rates of all groups."""
        self._processes = processes
        self._is_fused = processes.device.type in ("cpu", "cuda")
        self._narrow = {
            name
            for group in groups
            if group.settings.moments == "8bit"
            for name in in_8_bits(weights.module, group.parameters)
        }
        narrow = [weights.masters[name] for name in self._narrow]
        self._adam = AdamW(self._adam_groups(), narrow, fused=self._is_fused)

    def gradient_norms(self) -> Tensor:
        """Sum the gradients over the processes, and return each group's norm before clipping, [groups], unread."""
        self.weights.sum_gradients(self._masters(), self._processes)
        grouped = [_parameters(adam_groups) for _, adam_groups in self._with_adam_groups()]
        return torch.stack([self.weights.norm(masters, self._processes) for masters in grouped])

    def step(self, norms: Tensor | None = None, read: Sequence[float] | None = None) -> dict[str, float]:
        """Clip, step, and clear the gradients.

        Args:
            norms: what `gradient_norms` returned; None calls it.
            read: the same as the host read it, together with what else it wanted to know; None reads it here.

        Returns:
            `lr/GROUP` and `grad_norm/GROUP` (before clipping) of every group.

        Raises:
            GuardStop: a gradient is not finite; no weight has changed.
        """
        report: dict[str, float] = {}
        norms = self.gradient_norms() if norms is None else norms
        read = norms.tolist() if read is None else read
        for (group, adam_groups), total, norm in zip(self._with_adam_groups(), norms, read, strict=True):
            if not norm < float("inf"):
                raise GuardStop(
                    f"gradient norm of {group.name} is {norm} at update {self.num_done} - no step was taken"
                )
            clip_grads_with_norm_(_parameters(adam_groups), group.settings.max_grad_norm, total)
            rate = group.settings.learning_rate * self._factor(group) * self.scale
            for adam_group in adam_groups:
                adam_group["lr"] = rate
            report |= {f"lr/{group.name}": rate, f"grad_norm/{group.name}": norm}
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self.weights.publish()
        self.num_done += 1
        return report

    def discard(self) -> dict[str, float]:
        """Clear the gradients without a step, and report nothing."""
        self._adam.zero_grad(set_to_none=True)
        self.weights.discard()
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the whole moments by `MOMENT.PARAMETER`; before the first step all are 0."""
        found: dict[str, Tensor] = {}
        for name, form in self.weights.forms().items():
            state = self._adam.state.get(self.weights.masters[name], {})
            for moment, blank in blank_state(form, narrow=name in self._narrow).items():
                own = state.get(moment, blank)
                is_whole = moment == "step" or moment not in state or name in self._narrow
                found[f"{moment}.{name}"] = own if is_whole else self.weights.whole(name, own)
        return found

    def forms(self) -> dict[str, TensorForm]:
        """Return the shapes and types of `tensors`."""
        return {
            f"{moment}.{name}": each
            for name, form in self.weights.forms().items()
            for moment, each in forms_of_state(form, narrow=name in self._narrow).items()
        }

    def load(self, tensors: Mapping[str, Tensor], num_done: int) -> None:
        """Continue from saved moments after `num_done` updates; gradients of an update that failed are cleared."""
        self.num_done = num_done
        self.discard()
        for name, form in self.weights.forms().items():
            master = self.weights.masters[name]
            self._adam.state[master] = {
                # The fused kernel keeps `step` on the device of the weights, the plain one on the CPU.
                moment: self._own_moment(moment, name, tensors).to(
                    master.device if self._is_fused or moment != "step" else "cpu", copy=True
                )
                for moment in forms_of_state(form, narrow=name in self._narrow)
            }

    def _own_moment(self, moment: str, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        whole = tensors[f"{moment}.{name}"]
        return whole if moment == "step" or name in self._narrow else self.weights.own(name, whole)

    def _factor(self, group: ParameterGroup) -> float:
        settings = group.settings
        return learning_rate_factor(self.num_done, self.num_updates, settings.warmup_fraction, settings.schedule)

    def _masters(self) -> list[nn.Parameter]:
        return [self.weights.masters[name] for group in self.groups for name in group.parameters]

    def _adam_groups(self) -> list[dict[str, object]]:
        """Return two groups for each of ours: matrices get weight decay, norms and biases do not."""
        listed: list[dict[str, object]] = []
        for group in self.groups:
            masters = [self.weights.masters[name] for name in group.parameters]
            settings = group.settings
            shared = {"lr": settings.learning_rate, "betas": settings.betas, "eps": settings.eps}
            listed.append(
                {"params": [p for p in masters if p.ndim > 1], "weight_decay": settings.weight_decay, **shared}
            )
            listed.append({"params": [p for p in masters if p.ndim <= 1], "weight_decay": 0.0, **shared})
        return listed

    def _with_adam_groups(self) -> list[tuple[ParameterGroup, list[dict[str, Any]]]]:
        pairs = self._adam.param_groups
        return [(group, pairs[2 * index : 2 * index + 2]) for index, group in enumerate(self.groups)]


def _parameters(adam_groups: Sequence[dict[str, Any]]) -> list[nn.Parameter]:
    return [parameter for adam_group in adam_groups for parameter in adam_group["params"]]
