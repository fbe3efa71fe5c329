"""The metrics of a stage as series: one number for each step that has one."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.training.telemetry.metrics import MOST_STEPS, NOT_FINITE

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over the steps at which it is a finite number."""

    name: str
    steps: Floats
    """[N], rising."""
    values: Floats
    """[N]."""

    def __len__(self) -> int:
        return len(self.values)

    def smoothed(self) -> "Series":
        """Return the running median over the last twentieth of the series, 3 values at least: outliers do not count."""
        width = max(3, len(self) // 20)
        medians = [np.median(self.values[max(0, end - width) : end]) for end in range(1, len(self) + 1)]
        return Series(self.name, self.steps, np.array(medians, dtype=np.float64))

    def first_part(self, share: float) -> Floats:
        """Return the first values, `share` of them, at least one."""
        return self.values[: max(1, round(share * len(self)))]

    def last_part(self, share: float) -> Floats:
        """Return the last values, `share` of them, at least one."""
        return self.values[-max(1, round(share * len(self))) :]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The rows of metrics.jsonl."""

    rows: Sequence[Mapping[str, Any]]

    @property
    def steps(self) -> list[int]:
        """The steps that have a row."""
        return [int(row["step"]) for row in self.rows]

    @property
    def names(self) -> list[str]:
        """The names of all numbers, in the order in which they appear."""
        return [name for name in dict.fromkeys(name for row in self.rows for name in row) if len(self.series(name))]

    def series(self, name: str) -> Series:
        """Return the finite numbers of a metric; an empty series if there are none."""
        found = [(row["step"], row[name]) for row in self.rows if _is_number(row.get(name))]
        pairs = np.array(found, dtype=np.float64).reshape(-1, 2)
        return Series(name, pairs[:, 0], pairs[:, 1])

    def not_finite(self) -> dict[int, list[str]]:
        """Return, for each step that has any, the metrics that were NaN or infinite."""
        return {int(row["step"]): sorted(row[NOT_FINITE]) for row in self.rows if isinstance(row.get(NOT_FINITE), dict)}


def of_rows(rows: Sequence[Mapping[str, Any]]) -> Metrics:
    """Return metrics with one row a step: of several the last one counts, as a resumed run writes a step again."""
    by_step = {row["step"]: row for row in rows if type(row.get("step")) is int and abs(row["step"]) <= MOST_STEPS}
    return Metrics([by_step[step] for step in sorted(by_step)])


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # an integer may be beyond every float; NaN is not below it
