"""How a step on static memory is run: called each time, or captured once as a CUDA graph and replayed."""

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch
from torch import Tensor

Step = Callable[[], None]
"""Reads and writes the same memory at each call, and changes nothing if it is called twice."""
MOST_GRAPHS = 32
"""Graphs that are kept; the one that was not used for the longest time leaves. Each holds the arguments of some hundred
kernels on the device."""
WARM_UPS = 2
"""Calls before a capture, in which libraries reserve what they may not reserve during one."""
LARGEST_DIFFERENCE = 0.25
"""Nats by which two ways to compute a logprob may differ; rounding in bfloat16 stays below."""
log = logging.getLogger(__name__)


class Graph(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Run the kernels of the step again, on the same memory."""

    def pool(self) -> Any:
        """Return the memory of what the step computes on the way, for the next graph."""


class Runner(Protocol):
    """Runs steps."""

    has_failed: bool
    """Whether it cannot do what it is for, and only calls steps."""

    def run(self, key: Hashable, step: Step, logits: Tensor) -> None:
        """Run a step, which writes `logits` [B, V]. Steps of one key are alike: same kernels, same memory."""

    def clear(self) -> None:
        """Forget the steps, whose memory will be freed."""


class Eager:
    """Calls each step."""

    has_failed = False

    def run(self, key: Hashable, step: Step, logits: Tensor) -> None:
        """Call the step."""
        del key, logits
        step()

    def clear(self) -> None:
        """Do nothing: nothing is remembered."""


class CudaGraphs:
    """Captures the first step of each key and replays it for those that follow.

    All graphs share one pool of memory: none of them leaves anything there that is read after its replay. Where a
    capture fails, or its replay does not give what a call gives, every step is called from then on.
    """

    def __init__(self) -> None:
        self.has_failed = False
        self._graphs: OrderedDict[Hashable, Graph] = OrderedDict()
        self._pool: Any = None

    def __len__(self) -> int:
        return len(self._graphs)

    def run(self, key: Hashable, step: Step, logits: Tensor) -> None:
        """Replay the step, or capture it first."""
        if self.has_failed:
            step()
        elif key in self._graphs:
            self._graphs.move_to_end(key)
            self._graphs[key].replay()
        else:
            self._capture(key, step, logits)

    def clear(self) -> None:
        """Forget the graphs, whose memory will be freed."""
        self._graphs.clear()
        self._pool = None

    def _capture(self, key: Hashable, step: Step, logits: Tensor) -> None:
        step()
        expected = logits.clone()
        try:
            graph = capture(step, self._pool, logits.device)
            logits.zero_()
            graph.replay()
            if not agree(logits, expected):
                raise RuntimeError("its replay does not give the logits of the step that was captured")
        except Exception as error:  # whatever a driver, a library or a model says against it
            self.has_failed = True
            self.clear()
            log.warning("decoding goes on without CUDA graphs: %s", _line(error))
            step()
            return
        self._pool = graph.pool()
        self._graphs[key] = graph
        if len(self._graphs) > MOST_GRAPHS:
            self._graphs.popitem(last=False)


def capture(step: Step, pool: Any, device: torch.device) -> Graph:
    """Capture a step as a CUDA graph; nothing is computed that a later call of it would not compute again.

    Args:
        step: launches kernels on the current stream, and makes nobody wait.
        pool: of the graphs before, or None.
        device: of the step's memory.

    Raises:
        RuntimeError: CUDA cannot capture what the step does.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device):
        current, side = torch.cuda.current_stream(), _side_stream(device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                step()
        current.wait_stream(side)
        # The outer context comes back to the stream of before: the inner one does not where its capture fails.
        # Other threads of this process may go on meanwhile (thread_local).
        with (
            torch.cuda.stream(current),
            torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"),
        ):
            step()
    return graph


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream on which steps are captured: graphs share a pool only where they share that too."""
    return torch.cuda.Stream(device)


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether logits [B, V] give the likeliest tokens of others the same logprobs, but for rounding.

    A row whose expected logits are not finite is not compared: whoever draws from it finds that.
    """
    likeliest = expected.float().argmax(-1, keepdim=True)
    ours, theirs = (each.float().log_softmax(-1).gather(-1, likeliest) for each in (found, expected))
    return bool((((ours - theirs).abs() <= LARGEST_DIFFERENCE) | theirs.isnan()).all())


def _line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
