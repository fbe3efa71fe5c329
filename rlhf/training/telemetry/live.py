"""The live display of a loop on a terminal: a bar, lines of figures, and one sample as the policy wrote it."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from rlhf.printable import one_line, text_of
from rlhf.training.telemetry.pace import Pace

REFRESHES = 4
"""A second: the clock moves, nothing flickers, and a training step notices nothing."""
FIGURE_LINES = 3
"""Lines of figures at most: a display that is taller than the window would push away what was printed before."""
GAP = "  "


def is_live(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and not Console(file=stream).is_dumb_terminal


class LiveDisplay:
    """Shows a loop below whatever is printed meanwhile."""

    def __init__(
        self,
        stream: TextIO,
        description: str,
        pace: Pace,
        steps: tuple[int, int],
        interval: float,
        clock: Callable[[], float],
    ) -> None:
        """Describe the loop; nothing is shown before `start`.

        Args:
            stream: the terminal.
            description: what the loop does, in a word or two.
            pace: of the loop.
            steps: done already, and in all.
            interval: seconds that a sample stays at least.
            clock: returns seconds.
        """
        self._figures: list[str] = []
        self._sample: Mapping[str, Any] | None = None
        self._interval, self._clock = interval, clock
        self._sample_time = -float("inf")
        self._num_samples = 0
        self._stack = ExitStack()
        self._bar = _Bar(self._below, stream, pace)
        self._task = self._bar.add_task(description, completed=steps[0], total=steps[1])

    def start(self) -> None:
        """Begin to show; lines that are printed or logged to this terminal from now on go above the display."""
        before = (sys.stdout, sys.stderr)
        self._bar.start()
        self._stack.enter_context(_handlers_moved(before))

    def update(self, step: int, figures: list[str], samples: Sequence[Mapping[str, Any]] = ()) -> None:
        """Take the state after a step; of the rows of samples another one is shown each time."""
        self._figures = figures
        now = self._clock()
        if samples and now - self._sample_time >= self._interval:
            self._sample = {**samples[self._num_samples % len(samples)], "step": step}
            self._sample_time, self._num_samples = now, self._num_samples + 1
        self._bar.update(self._task, completed=step)

    def stop(self) -> None:
        """Leave bar and figures on screen, and give the terminal back."""
        self._sample = None
        self._stack.close()
        self._bar.stop()

    def _below(self) -> Iterator[RenderableType]:
        if self._figures:
            yield _Figures(self._figures)
        if self._sample is not None:
            yield _Sample(self._sample)


class _Bar(RichProgress):
    """The bar of rich, with more lines below it."""

    def __init__(self, below: Callable[[], Iterable[RenderableType]], stream: TextIO, pace: Pace) -> None:
        self._below = below
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(None, table_column=Column(ratio=1)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TaskProgressColumn(table_column=Column(no_wrap=True)),
            _Said(pace.told),
            _Said(pace.left),
            console=Console(file=stream),
            expand=True,
            refresh_per_second=REFRESHES,
            redirect_stdout=sys.stdout.isatty(),  # what goes into a file or a pipe must arrive there
            redirect_stderr=sys.stderr.isatty(),
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what stands on the screen."""
        yield from super().get_renderables()
        yield from self._below()


class _Said(ProgressColumn):
    """A column whose text a function returns."""

    max_refresh = None

    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__(Column(no_wrap=True))
        self._text = text

    def render(self, task: Task) -> Text:
        return Text(self._text())


class _Figures:
    """Words in a few lines: none is cut in two, and those that find no room are left out."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        lines = [""]
        for word in self._words:
            longer = f"{lines[-1]}{GAP}{word}"
            if cell_len(longer) > options.max_width and lines[-1]:
                lines.append(longer := f"{GAP}{word}")
            lines[-1] = longer
        for line in lines[:FIGURE_LINES]:
            yield Text(set_cell_size(line, options.max_width) if cell_len(line) > options.max_width else line)


class _Sample:
    """A prompt and what the policy answered, each on one line, whatever characters it wrote."""

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield two lines."""
        score = self._row.get("score")
        told = f", score {score:.3g}" if isinstance(score, int | float) else ""
        for title, key in ((f"step {self._row['step']}", "prompt"), (f"answer{told}", "response")):
            yield Text(_cut(f"{GAP}{title}: {_plain(self._row.get(key), console.encoding)}", options.max_width))


def _plain(text: object, encoding: str) -> str:
    """Return what can be shown of a text, or a conversation, that anyone may have written."""
    return one_line(text_of(text)).encode(encoding, "replace").decode(encoding)


def _cut(line: str, width: int) -> str:
    """Return a line that surely fits: terminals disagree about the width of a few characters."""
    room = width - 2
    return line if cell_len(line) <= room else f"{set_cell_size(line, room - 3)}..."


@contextmanager
def _handlers_moved(before: tuple[TextIO, TextIO]) -> Iterator[None]:
    """Let handlers of `logging` that hold the old streams write to those that a display put in their places."""
    after = (sys.stdout, sys.stderr)
    loggers = [logging.getLogger(), *(each for each in logging.root.manager.loggerDict.values())]
    handlers = {handler for logger in loggers for handler in getattr(logger, "handlers", [])}
    moved: list[tuple[logging.StreamHandler[Any], TextIO]] = []
    for handler in handlers:
        for old, new in zip(before, after, strict=True):
            if old is not new and isinstance(handler, logging.StreamHandler) and handler.stream is old:
                handler.setStream(new)
                moved.append((handler, old))
                break
    try:
        yield
    finally:
        for handler, old in moved:
            handler.setStream(old)
