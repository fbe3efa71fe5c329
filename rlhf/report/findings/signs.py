"""What detectors share: a metric that is long enough, the first step of a sign, where a curve began and where it is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf.report.findings.finding import Lacking, Result
from rlhf.report.reading.metrics import Floats, Series
from rlhf.report.reading.run import Run

MIN_STEPS = 8
"""A curve of fewer steps shows no trend."""
BEGINNING, END = 0.1, 0.1
"""Shares of a curve that count as its beginning and its end; 3 steps at least."""


@dataclass(frozen=True, slots=True)
class Course:
    """Where a curve began, where it ended, and its running median."""

    smooth: Series
    start: float
    end: float

    def first(self, sign: Callable[[Floats], NDArray[np.bool_]]) -> int:
        """Return the first step from which on the running median shows a sign to the end; it must show it there."""
        shown = sign(self.smooth.values)
        hidden = np.flatnonzero(~shown)
        place = 0 if len(hidden) == 0 else min(int(hidden[-1]) + 1, len(shown) - 1)
        return int(self.smooth.steps[place])


def watched(run: Run, name: str, look: Callable[[Course], Result], min_steps: int = MIN_STEPS) -> Result:
    """Give the course of a PPO metric to `look`, or say what is lacking."""
    series = ppo_series(run, name)
    if len(series) < min_steps:
        return Lacking(f"needs {name} over {min_steps} steps or more, found {len(series)}")
    return look(course(series))


def course(series: Series) -> Course:
    """Return where a series began and where it ended, each as a median."""
    edge = max(3, round(BEGINNING * len(series)))
    last = max(3, round(END * len(series)))
    return Course(series.smoothed(), float(np.median(series.values[:edge])), float(np.median(series.values[-last:])))


def ppo_series(run: Run, name: str) -> Series:
    """Return a metric of the PPO stage, empty where there is none."""
    return Series(name, np.empty(0), np.empty(0)) if run.ppo is None else run.ppo.metrics.series(name)


def score_gain(run: Run) -> tuple[float, float]:
    """Return how far the training score rose from the first to the last fifth of the steps, and its standard error."""
    scores = ppo_series(run, "objective/scores")
    early, late = scores.first_part(0.2), scores.last_part(0.2)
    if min(len(early), len(late)) < 2:
        return 0.0, float("inf")
    error = np.sqrt(early.var(ddof=1) / len(early) + late.var(ddof=1) / len(late))
    return float(late.mean() - early.mean()), float(error)


def from_to(course: Course, unit: str = "") -> str:
    """Return `from 1.2 to 3.4 UNIT`."""
    return f"from {course.start:.3g} to {course.end:.3g}{f' {unit}' if unit else ''}"
