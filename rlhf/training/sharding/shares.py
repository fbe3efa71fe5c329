"""One pass for each part of a whole, shared out over the processes: held-out items, demonstrations to centre on."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from torch import nn

from rlhf.training.processes import Processes

Part = TypeVar("Part")
Result = TypeVar("Result")


def own_results(
    processes: Processes, module: nn.Module, parts: Sequence[Part], call: Callable[[Part], Result]
) -> list[Result]:
    """Return what `call`, which passes through `module`, makes of this process's parts; all call this together.

    Args:
        processes: of the run.
        module: on one process, or on all.
        parts: of all processes, the same on each; at least one.
        call: must not communicate.
    """
    sharding = processes.sharding
    own = sharding.equalised(parts[processes.rank :: processes.num], parts[0])
    results = [(sharding.inside(module, partial(call, part)), counts) for part, counts in own]
    return [result for result, counts in results if counts]
