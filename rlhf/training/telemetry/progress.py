"""How far a loop has come: a bar on a terminal, otherwise a plain line now and then."""

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Shows step, total, rate, remaining time and a few metrics on stderr."""

    def __init__(
        self,
        total: int,
        description: str,
        *,
        enabled: bool = True,
        start: int = 0,
        interval: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the loop; nothing is shown before `__enter__`.

        Args:
            total: steps of the whole loop.
            description: what the loop does, in a word or two.
            enabled: False on all processes but one: then nothing is shown.
            start: steps that a resumed run has already done.
            interval: seconds between two plain lines.
            stream: used instead of stderr.
            clock: returns seconds.
        """
        self.total = total
        self.description = description
        self._start = self._step = start
        self._interval = interval
        self._stream = stream or sys.stderr
        self._clock = clock
        self._start_time = self._shown_time = clock()
        self._bar = _bar(self._stream) if enabled and self._stream.isatty() else None
        self._task: TaskID | None = None
        self._is_plain = enabled and self._bar is None

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Report that `step` steps are complete, with the metrics to show."""
        self._step = step
        shown = "  ".join(f"{name} {value:.4g}" for name, value in (metrics or {}).items())
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, metrics=shown)
        elif self._is_plain and (step >= self.total or self._clock() - self._shown_time >= self._interval):
            self._shown_time = self._clock()
            print(self._line(shown), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        """Start the clock, and the bar on a terminal."""
        self._start_time = self._shown_time = self._clock()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, completed=self._start, metrics="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the bar and leave it on screen."""
        if self._bar is not None:
            self._bar.stop()

    def _line(self, shown: str) -> str:
        seconds = max(self._clock() - self._start_time, 1e-9)
        rate = (self._step - self._start) / seconds
        remaining = _duration((self.total - self._step) / rate) if rate > 0 else "unknown"
        line = f"{self.description}: step {self._step}/{self.total}  {rate:.2f} steps/s  remaining {remaining}"
        return f"{line}  {shown}" if shown else line


def _bar(stream: TextIO) -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}", markup=False),
        console=Console(file=stream),
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
