"""Float32 masters of a module's trained weights, whole on every process."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from rlhf.training.frozen import FrozenWeights, Sources
from rlhf.training.sharding.weights import Summing
from rlhf.training.storage.schema import TensorForm, forms_of


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

    def sum_gradients(self, masters: Sequence[nn.Parameter], processes: Summing) -> None:
        """Give each of the masters its gradient over all processes; 0 where the loss did not depend on it."""
        for master in masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        processes.sum_in_place([master.grad for master in masters if master.grad is not None])

    def norm(self, masters: Sequence[nn.Parameter], processes: Summing) -> Tensor:
        """Return the norm of the summed gradients of these masters, a scalar on their device, unread."""
        return get_total_norm([master.grad for master in masters if master.grad is not None])

    def discard(self) -> None:
        """Forget nothing: the optimizer clears the gradients of the masters, and there are no others."""

    def whole(self, name: str, own: Tensor) -> Tensor:
        """Return the tensor: every process holds the whole."""
        return own

    def own(self, name: str, whole: Tensor) -> Tensor:
        """Return the tensor: every process holds the whole."""
        return whole

    def saved(self) -> dict[str, Tensor]:
        """Return the masters, for a checkpoint."""
        return {name: master.detach() for name, master in self.masters.items()}

    def forms(self) -> dict[str, TensorForm]:
        """Return the forms of the masters."""
        return forms_of(self.masters)

    def gather(self) -> None:
        """Do nothing: every process has what it needs for `in_full_precision`."""

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
