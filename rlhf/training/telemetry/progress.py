"""How far a loop has come: a bar on a terminal, otherwise a plain line now and then."""

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

_BAR_WIDTH = 16
"""Columns of the bar itself: at 80 columns one or two metrics fit behind it."""


class Progress:
    """Shows step, share done, pace, time left and, where there is room, a few metrics on stderr."""

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
        self._start_time = self._shown_time = self._step_time = clock()
        self._metrics: list[str] = []
        self._bar = self._made_bar() if enabled and self._stream.isatty() else None
        self._is_plain = enabled and self._bar is None

    def update(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Report that `step` steps are complete, with the metrics to show."""
        self._step, self._step_time = step, self._clock()
        self._metrics = [f"{name} {value:.4g}" for name, value in (metrics or {}).items()]
        if self._bar is not None:
            for task in self._bar.task_ids:
                self._bar.update(task, completed=step)
        elif self._is_plain and (step >= self.total or self._step_time - self._shown_time >= self._interval):
            self._shown_time = self._step_time
            print(self._line(), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        """Start the clock, and the bar on a terminal."""
        self._start_time = self._shown_time = self._step_time = self._clock()
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task(self.description, total=self.total, completed=self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the bar and leave it on screen."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def _seconds_per_step(self) -> float | None:
        """The mean over the steps of this run; None before the first is done."""
        done = self._step - self._start
        return max(self._step_time - self._start_time, 1e-9) / done if done > 0 else None

    def _pace(self) -> str:
        seconds = self._seconds_per_step
        if seconds is None:
            return "first step"
        return f"{seconds:.1f} s/step" if seconds > 1.0 else f"{1.0 / seconds:.2f} steps/s"

    def _left(self) -> str:
        """Return the time left, counted down between two steps; before the first, the time passed."""
        since_step = self._clock() - self._step_time
        seconds = self._seconds_per_step
        if seconds is None:
            return f"{_duration(since_step)} passed"
        return f"{_duration(max((self.total - self._step) * seconds - since_step, 0.0))} left"

    def _line(self) -> str:
        step = f"step {self._step}/{self.total} ({self._step / self.total:.0%})"
        return "  ".join([f"{self.description}: {step}", self._pace(), self._left(), *self._metrics])

    def _made_bar(self) -> RichProgress:
        """Return a bar as wide as the terminal; its last column, the metrics, takes what the others leave."""
        return RichProgress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(_BAR_WIDTH),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TaskProgressColumn(table_column=Column(no_wrap=True)),
            _Said(self._pace),
            _Said(self._left),
            _Metrics(lambda: self._metrics),
            console=Console(file=self._stream),
            expand=True,
        )


class _Said(ProgressColumn):
    """A column whose text a function returns."""

    max_refresh = None

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__(Column(no_wrap=True))
        self._text = text

    def render(self, task: Task) -> Text:
        return Text(self._text())


class _Metrics(ProgressColumn):
    """The column that gives way: as many whole metrics as fit, never half a number."""

    max_refresh = None

    def __init__(self, metrics: Callable[[], list[str]]) -> None:
        super().__init__(Column(ratio=1, no_wrap=True))
        self._metrics = metrics

    def render(self, task: Task) -> "_Fitting":
        return _Fitting(self._metrics())


class _Fitting:
    """Words in one line, as many from the front as the width allows."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the line."""
        num = len(self._words)
        while num and len("  ".join(self._words[:num])) > options.max_width:
            num -= 1
        yield Text("  ".join(self._words[:num]))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Ask for nothing, and take what is left."""
        return Measurement(0, options.max_width)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
