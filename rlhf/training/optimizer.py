"""AdamW on float32 master weights of a model that may compute in bfloat16."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from rlhf.errors import GuardStop
from rlhf.training.frozen import FrozenWeights, Sources
from rlhf.training.processes import Processes
from rlhf.training.schedule import learning_rate_factor
from rlhf.training.storage.schema import TensorForm

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter, under torch's names."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters that are clipped together and share their settings."""

    name: str
    """What the learning rate and the gradient norm are logged under."""
    parameters: Mapping[str, nn.Parameter]
    """Name in the module: parameter."""
    settings: OptimizerSettings


class MasterWeights:
    """Float32 copies of the trained parameters; the module itself computes in `dtype`.

    The backward pass adds the module's gradients to those of the masters and frees them, one parameter at a time.
    If `dtype` is float32, parameters are their own masters.
    """

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        *,
        keep_float32: Sequence[nn.Module] = (),
        sources: Sources | None = None,
    ) -> None:
        """Take the masters from a float32 module, then convert its parameters in place (but not its buffers).

        Args:
            module: float32, on its device.
            dtype: what the module computes in.
            keep_float32: parts that stay float32, such as a value head.
            sources: where frozen weights are read again in float32; without, those that rounding changes are kept.
        """
        kept = {id(parameter) for part in keep_float32 for parameter in part.parameters()}
        self.module = module
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.frozen = FrozenWeights(sources or {})
        self._adders: list[_GradientAdder] = []
        self.masters: dict[str, nn.Parameter] = {}
        for name, parameter in module.named_parameters():
            is_own_master = dtype == torch.float32 or id(parameter) in kept
            if parameter.requires_grad:
                self.masters[name] = parameter if is_own_master else nn.Parameter(parameter.detach().clone())
                if not is_own_master:
                    parameter.data = parameter.data.to(dtype)
                    self._adders.append(_GradientAdder(self.masters[name]))
                    parameter.register_post_accumulate_grad_hook(self._adders[-1])
            elif not is_own_master:
                self.frozen.round(name, parameter, dtype)

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters, rounded to `dtype`, into the module."""
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                self.parameters[name].copy_(master)

    def release(self) -> None:
        """Free the memory of gradients between two steps; the next backward pass takes it again."""
        for adder in self._adders:
            adder.memory = None

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the masters, and the module with them."""
        for name, master in self.masters.items():
            master.copy_(tensors[name])
        self.publish()

    @contextmanager
    def in_full_precision(self, *, takes_changes: bool = False) -> Iterator[None]:
        """Put float32 weights into the module for saving: the masters if trained, as loaded if frozen.

        With `takes_changes` what is written into them meanwhile stays.

        Raises:
            ConfigError, CheckpointError: frozen weights can no longer be read where they came from.
        """
        frozen = self.frozen.exact()
        exact = {**frozen, **{name: master.detach() for name, master in self.masters.items()}}
        parameters = {name: p for name, p in self.module.named_parameters() if name in exact}
        rounded = {name: parameter.data for name, parameter in parameters.items()}
        try:
            for name, parameter in parameters.items():
                parameter.data = exact[name]
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = rounded[name]
        if takes_changes:
            self.publish()
            self.frozen.replace(frozen)


class Optimizer:
    """AdamW over parameter groups, each clipped on its own norm and following its own schedule."""

    def __init__(
        self, weights: MasterWeights, groups: Sequence[ParameterGroup], num_updates: int, processes: Processes
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
        self._adam = torch.optim.AdamW(self._adam_groups(), fused=self._is_fused)

    def gradient_norms(self) -> Tensor:
        """Sum the gradients over the processes, and return each group's norm before clipping, [groups], unread."""
        masters = self._masters()
        for master in masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        self._processes.sum_in_place([master.grad for master in masters if master.grad is not None])
        return torch.stack([get_total_norm(_gradients(adam_groups)) for _, adam_groups in self._with_adam_groups()])

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
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments by `MOMENT.PARAMETER`; before the first step all are 0."""
        found: dict[str, Tensor] = {}
        for name, form in self.forms().items():
            moment, _, parameter = name.partition(".")
            state = self._adam.state.get(self.weights.masters[parameter], {})
            found[name] = state[moment] if moment in state else torch.zeros([each or 0 for each in form.shape])
        return found

    def forms(self) -> dict[str, TensorForm]:
        """Return the shapes and types of `tensors`."""
        return {
            f"{moment}.{name}": TensorForm(() if moment == "step" else tuple(master.shape), torch.float32)
            for name, master in self.weights.masters.items()
            for moment in MOMENTS
        }

    def load(self, tensors: Mapping[str, Tensor], num_done: int) -> None:
        """Continue from saved moments after `num_done` updates; gradients of an update that failed are cleared."""
        self.num_done = num_done
        self.discard()
        for name, master in self.weights.masters.items():
            self._adam.state[master] = {
                # The fused kernel keeps `step` on the device of the weights, the plain one on the CPU.
                moment: tensors[f"{moment}.{name}"].to(
                    master.device if self._is_fused or moment != "step" else "cpu", copy=True
                )
                for moment in MOMENTS
            }

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


def _gradients(adam_groups: Sequence[dict[str, Any]]) -> list[Tensor]:
    return [parameter.grad for parameter in _parameters(adam_groups) if parameter.grad is not None]


class _GradientAdder:
    """Moves a parameter's gradient onto its master, into memory that is reused in every step."""

    def __init__(self, master: nn.Parameter) -> None:
        self._master = master
        self.memory: Tensor | None = None

    def __call__(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            if self.memory is None:
                self.memory = torch.empty_like(self._master)
            if self._master.grad is None:
                self._master.grad = self.memory.copy_(parameter.grad)
            else:
                self._master.grad += parameter.grad
            parameter.grad = None
