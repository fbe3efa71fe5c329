"""How fast a loop goes and when it will be done: a forecast before its first step, then what the last steps took."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

RECENT = 20
"""Steps whose mean time counts: responses grow, and the first step warms up."""
OFF = 0.25
"""Share by which the measured time must differ from the forecast before that is said."""

_expected: ContextVar[float | None] = ContextVar("expected seconds of the loop", default=None)


@contextmanager
def expecting(seconds: float | None) -> Iterator[None]:
    """Let a loop that begins inside know how long a forecast says that all its steps take; None where none says."""
    token = _expected.set(seconds)
    try:
        yield
    finally:
        _expected.reset(token)


class Pace:
    """The clock of a loop."""

    def __init__(self, total: int, start: int, clock: Callable[[], float]) -> None:
        """Start the clock.

        Args:
            total: steps of the whole loop.
            start: steps that a resumed run has already done.
            clock: returns seconds.
        """
        self._total, self._clock = total, clock
        self._start_time = clock()
        self._marks = deque([(start, self._start_time)], maxlen=RECENT + 1)
        whole = _expected.get()
        self._forecast = None if whole is None or total <= 0 else whole * (total - start) / total

    def done(self, step: int) -> float:
        """Note that `step` steps are complete; return the time."""
        now = self._clock()
        self._marks.append((step, now))
        return now

    @property
    def seconds_per_step(self) -> float | None:
        """The mean over the last steps of this run; None before the first is done."""
        (first, began), (last, ended) = self._marks[0], self._marks[-1]
        return max(ended - began, 1e-9) / (last - first) if last > first else None

    def told(self) -> str:
        """Return the pace in words."""
        seconds = self.seconds_per_step
        if seconds is None:
            return "first step"
        return f"{seconds:.1f} s/step" if seconds > 1.0 else f"{1.0 / seconds:.2f} steps/s"

    def left(self) -> str:
        """Return the time left, counted down between two steps.

        Before the first step it is that of the forecast; without one, or when its time is over, the time passed.
        """
        step, then = self._marks[-1]
        since = self._clock() - then
        seconds = self.seconds_per_step
        if seconds is not None:
            return f"{duration(max((self._total - step) * seconds - since, 0.0))} left"
        if self._forecast is not None and self._forecast > since:
            return f"about {duration(self._forecast - since)} left"
        return f"{duration(since)} passed"

    def correction(self) -> str:
        """Return the forecast and what it became, where the measured time differs clearly; or nothing."""
        step, then = self._marks[-1]
        seconds = self.seconds_per_step
        if self._forecast is None or seconds is None:
            return ""
        now = then - self._start_time + (self._total - step) * seconds
        if abs(now - self._forecast) <= OFF * self._forecast:
            return ""
        return f"forecast {duration(self._forecast)}, now {duration(now)} in all"


def duration(seconds: float) -> str:
    """Return seconds as `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
