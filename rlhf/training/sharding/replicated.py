"""Every process holds every weight: a pass needs no other process, so nothing is to be done."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Replicated:
    """The strategy of a plain launch; `Fsdp2` has the same methods."""

    name: ClassVar[str] = "none"
    """In the fingerprint of a checkpoint, the circumstances of a run and its first line."""

    def loading_device(self, device: torch.device) -> torch.device:
        """Return where a model waits until it is held for training, on a process that computes on `device`."""
        return device

    def inside(self, module: nn.Module, call: Callable[[], T]) -> T:
        """Return what `call` returns: one pass through `module`, or several before the backward pass."""
        return call()

    @contextmanager
    def whole(self, *modules: nn.Module) -> Iterator[None]:
        """Let this process make any number of passes without gradients through the modules."""
        yield

    def equalised(self, parts: Sequence[T], spare: T) -> list[tuple[T, bool]]:
        """Return the parts of this process, one for each pass, and whether they count.

        Args:
            parts: any number on each process.
            spare: what a process passes, without counting it, while others still pass theirs.
        """
        return [(part, True) for part in parts]

    @contextmanager
    def noticing_loss(self) -> Iterator[None]:
        """Turn what a pass raises because another process ended into one line."""
        yield
