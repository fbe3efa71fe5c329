"""The rows of a run, as they are made: to metrics.jsonl, to the trackers, and to the progress bar."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from rlhf.training.telemetry.last_step import LastStep
from rlhf.training.telemetry.metrics import MetricsLog
from rlhf.training.telemetry.progress import Progress
from rlhf.training.telemetry.trackers import Trackers


class Record:
    """Holds the three open from `__enter__` to `__exit__`."""

    def __init__(self, log: MetricsLog, trackers: Trackers, bar: Progress) -> None:
        """Take the three."""
        self.log = log
        self.trackers = trackers
        self.bar = bar
        self._stack = ExitStack()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the row of a step, and send it to the trackers."""
        self.log.write(step, metrics)
        self.trackers.log(step, metrics)

    def rewrite(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the row of the last step again, in place of the one that it may have."""
        self.log.cut_back(step - 1)
        self.write(step, metrics)

    def show(self, step: int, metrics: Mapping[str, float], names: Sequence[str], last: LastStep) -> None:
        """Move the bar, show the named metrics, and hand on the samples of the step, if it has any."""
        self.bar.update(step, last.figures(metrics, names), last.samples)
        self.trackers.log_samples(step, last.samples)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._stack.callback(self.trackers.close)
        self._stack.enter_context(self.log)
        self._stack.enter_context(self.bar)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all three, whatever happens to one of them."""
        self._stack.__exit__(kind, error, traceback)
