"""The trained weights of a module: what the optimizer, checkpoints and exports need of them, however they are held."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor, nn

from rlhf.training.frozen import FrozenWeights
from rlhf.training.storage.schema import TensorForm


class Summing(Protocol):
    """What sums over processes."""

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum of each number over all processes."""

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""


class Weights(Protocol):
    """`MasterWeights`, whole on every process, or `ShardedWeights`."""

    module: nn.Module
    """Computes in the run's compute type."""
    parameters: dict[str, nn.Parameter]
    """The trained parameters, by their names in the module."""
    masters: dict[str, nn.Parameter]
    """What the optimizer steps on, in float32, by the same names: whole weights, or this process's part of each."""

    frozen: FrozenWeights
    """Float32 values of what is not trained and was rounded; none where weights are in shards."""

    def sum_gradients(self, masters: Sequence[nn.Parameter], processes: Summing) -> None:
        """Give each of the masters its gradient over all processes; 0 where the loss did not depend on it."""

    def norm(self, masters: Sequence[nn.Parameter], processes: Summing) -> Tensor:
        """Return the norm of the summed gradients of these masters, a scalar on their device, unread.

        All processes call this together. Scaling every gradient that a process holds by one factor scales the norm.
        """

    def discard(self) -> None:
        """Forget gradients that no step will use."""

    def publish(self) -> None:
        """Make the module compute with the masters as they are now."""

    def release(self) -> None:
        """Free the memory of gradients between two steps."""

    def whole(self, name: str, own: Tensor) -> Tensor:
        """Return a tensor of which every process has its part, or the whole, in the form of master `name`.

        All processes call this together; only what the first one gets back is meant.
        """

    def own(self, name: str, whole: Tensor) -> Tensor:
        """Return what this process holds of a whole tensor in the form of master `name`."""

    def saved(self) -> dict[str, Tensor]:
        """Return the whole masters, for a checkpoint; called and meant as `whole`."""

    def forms(self) -> dict[str, TensorForm]:
        """Return the forms of `saved`."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the masters from `saved`, and the module with them."""

    def gather(self) -> None:
        """Let the first process enter `in_full_precision`; all processes call this together."""

    def in_full_precision(self, *, takes_changes: bool = False) -> AbstractContextManager[None]:
        """Put float32 weights into the module for saving: the masters if trained, as loaded if frozen.

        The first process alone enters where weights are sharded, once `gather` was called; changes cannot stay there.
        """
