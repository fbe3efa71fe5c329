"""What stands in for a CUDA graph on a CPU: the operations of a step, recorded once and repeated on the same memory.

A replay runs no Python of the model. What the step computed on the way lies where it lay at the capture, and is
overwritten with NaN after each replay, as another graph of the same pool would. Like CUDA, a capture refuses what makes
the host wait.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "repeat_interleave", "_unique2"}


class Operations(TorchDispatchMode):
    """Notes operations with their arguments and results, as views that keep the memory of this moment."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in WAITING:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        kept = tree_map(_held, (args, kwargs or {}))
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, *kept, tree_map(_held, result)))
        return result

    def outside(self) -> dict[int, Tensor]:
        """Return the tensors that were there before, by the address of their memory."""
        made: set[int] = set()
        found: dict[int, Tensor] = {}
        for _, args, kwargs, result in self.calls:
            given = _tensors((args, kwargs))
            found |= {_base(each): each for each in given if _base(each) not in made}
            made |= {_base(each) for each in _tensors(result)} - {_base(each) for each in given}
        return found

    def signature(self) -> list[Any]:
        """Return what must be alike at each step: operations, numbers, shapes, addresses of what was there before."""
        outside = self.outside()

        def told(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return str(value)
            where = value.data_ptr() if _base(value) in outside else None
            return (tuple(value.shape), value.stride(), value.dtype, where)

        return [
            (str(func), [told(each) for each in tree_flatten((args, kwargs))[0]])
            for func, args, kwargs, _ in self.calls
        ]


class RecordedGraph:
    """The operations of a step."""

    def __init__(self, operations: Operations) -> None:
        self.operations, self.num_replays = operations, 0

    def replay(self) -> None:
        """Run the operations again, with their results in the memory of the capture."""
        self.num_replays += 1
        own = []
        for func, args, kwargs, before in self.operations.calls:
            bases = {_base(each) for each in _tensors((args, kwargs))}
            now = func(*args, **kwargs)
            for old, new in zip(_tensors(before), _tensors(now), strict=True):
                if _base(old) not in bases:  # neither written in place nor a view
                    old.copy_(new)
                    own.append(old)
        for each in own:
            if each.is_floating_point():
                each.fill_(float("nan"))

    def pool(self) -> str:
        """Return what stands for the memory of all graphs."""
        return "pool"


class Captures:
    """In the place of `rlhf.sampling.graphs.capture`; notes what it captured."""

    def __init__(self) -> None:
        self.graphs: list[RecordedGraph] = []
        self.pools: list[Any] = []

    def __call__(self, step: Any, pool: Any, device: torch.device) -> RecordedGraph:
        with Operations() as operations:
            step()
        self.pools.append(pool)
        self.graphs.append(RecordedGraph(operations))
        return self.graphs[-1]


class Repeating:
    """A runner that calls each step, and compares its operations and addresses with those of the first of its key."""

    has_failed = False

    def __init__(self) -> None:
        self.first: dict[Any, list[Any]] = {}
        self.num_steps: dict[Any, int] = {}

    def run(self, key: Any, step: Any, logits: Tensor) -> None:
        with Operations() as operations:
            step()
        found = operations.signature()
        assert self.first.setdefault(key, found) == found
        self.num_steps[key] = self.num_steps.get(key, 0) + 1

    def clear(self) -> None:
        self.first.clear()


def _held(value: Any) -> Any:
    # A parameter whose `.data` is replaced later keeps, in this view, the memory that it had.
    return value.detach() if isinstance(value, Tensor) else value


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_flatten(tree)[0] if isinstance(each, Tensor)]


def _base(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
