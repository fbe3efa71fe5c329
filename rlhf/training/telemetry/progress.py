"""How far a loop has come: a live display on a terminal, otherwise a plain line now and then."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from rlhf.errors import ConfigError
from rlhf.training.telemetry.live import LiveDisplay, is_live
from rlhf.training.telemetry.pace import Pace

VARIABLE = "RLHF_PROGRESS"
"""Environment variable: `auto` shows what the terminal can, `plain` lines everywhere, `off` nothing."""
CHOICES = ("auto", "plain", "off")


class Progress:
    """Shows step, share done, pace, time left, figures and now and then a sample on stderr."""

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
            interval: seconds between two plain lines, or two samples on a terminal.
            stream: used instead of stderr.
            clock: returns seconds.

        Raises:
            ConfigError: the environment variable RLHF_PROGRESS holds something unknown.
        """
        chosen = _chosen()
        self.total = total
        self.description = description
        self._start, self._interval, self._clock = start, interval, clock
        self._step = start
        self._stream = stream or sys.stderr
        self._pace = Pace(total, start, clock)
        self._shown_time = clock()
        self._live: LiveDisplay | None = None
        is_shown = enabled and chosen != "off"
        self._is_live = is_shown and chosen == "auto" and is_live(self._stream)
        self._is_plain = is_shown and not self._is_live

    def update(
        self, step: int, figures: Mapping[str, float] | None = None, samples: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Report that `step` steps are complete, with the figures to show, and rows of which one may be shown."""
        self._step = step
        now = self._pace.done(step)
        words = [f"{name} {_number(value)}" for name, value in (figures or {}).items()]
        if correction := self._pace.correction():
            words.append(correction)
        if self._live is not None:
            self._live.update(step, words, samples)
        elif self._is_plain and (step >= self.total or now - self._shown_time >= self._interval):
            self._shown_time = now
            share = f"step {step}/{self.total} ({step / self.total:.0%})"
            line = "  ".join([f"{self.description}: {share}", self._pace.told(), self._pace.left(), *words])
            print(line, file=self._stream, flush=True)

    def advance(self, number: int, samples: Sequence[Mapping[str, Any]] = ()) -> None:
        """Report that `number` more steps are complete, with rows of which one may be shown; never beyond the total."""
        self.update(min(self._step + number, self.total), samples=samples)

    def __enter__(self) -> Self:
        """Start the clock, and the display on a terminal."""
        self._pace = Pace(self.total, self._start, self._clock)
        self._shown_time = self._clock()
        if self._is_live:
            self._live = LiveDisplay(
                self._stream, self.description, self._pace, (self._start, self.total), self._interval, self._clock
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the display: the last state of bar and figures stays on screen, the sample does not."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _chosen() -> str:
    chosen = os.environ.get(VARIABLE, "") or "auto"
    if chosen not in CHOICES:
        raise ConfigError(f"{VARIABLE}: expected {', '.join(CHOICES)}, found {chosen!r} - unset it for `auto`")
    return chosen


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
