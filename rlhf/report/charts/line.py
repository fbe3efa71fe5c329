"""A curve: points, with or without a band, thinned so that a long one stays small."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.report.reading.metrics import Floats, Series

MOST_POINTS = 160
"""A drawing of 400 units shows no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve of a chart."""

    label: str
    x: Floats
    y: Floats
    low: Floats | None = None
    """Lower edge of the band; with `high`, or neither."""
    high: Floats | None = None
    points_only: bool = False
    """Draw each point with its interval, and no line through them."""
    colour: int | None = None
    """Of the palette; None takes the place of the line in its chart."""

    def place_at(self, x: float) -> int | None:
        """Return the place of the last point up to `x`; None before the first."""
        place = int(np.searchsorted(self.x, x, side="right")) - 1
        return place if place >= 0 else None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a step."""

    x: float
    label: str


def line_of(series: Series, label: str) -> Line:
    """Return a series as a line: of a long one the mean of neighbours, with a band from the lowest to the highest."""
    if len(series) <= MOST_POINTS:
        return Line(label=label, x=series.steps, y=series.values)
    parts = [part for part in np.array_split(np.arange(len(series)), MOST_POINTS) if len(part)]

    def each(reduce: str, values: Floats) -> Floats:
        return np.array([getattr(np, reduce)(values[part]) for part in parts])

    ends = np.array([series.steps[part[-1]] for part in parts])
    means, lows, highs = (each(name, series.values) for name in ("mean", "min", "max"))
    return Line(label=label, x=ends, y=means, low=lows, high=highs)


def band_of(several: Sequence[Series], label: str) -> Line | None:
    """Return the mean of several series over the steps that all of them have, with a band from lowest to highest."""
    shared = sorted(set.intersection(*(set(series.steps.tolist()) for series in several))) if several else []
    if len(several) < 2 or len(shared) < 2:
        return None
    rows = np.stack([series.values[np.isin(series.steps, shared)] for series in several])
    merged = [line_of(Series(label, np.array(shared), row), label) for row in (rows.mean(0), rows.min(0), rows.max(0))]
    middle, low, high = merged
    return Line(label=label, x=middle.x, y=middle.y, low=low.y, high=high.y)
