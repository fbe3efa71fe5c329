"""What an experiment returns to the page: text, tables, curves; and its settings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from rlhf.lab.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of every experiment."""

    seed: int = 0
    """Seed of all randomness: the same seed gives the same numbers."""
    model: str = "fetch:smollm2-135m-instruct"
    """Directory, `fetch:NAME` or hub name; for the experiments with a language model."""
    quick: bool = False
    """Tiny sizes, for tests: everything runs in seconds, and the numbers mean little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points of one kind, with or without intervals."""

    label: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    """Lower ends of the intervals of y; with `high`, or neither. Without them the curve is dashed, as a formula is."""
    high: list[float] | None = None

    @classmethod
    def through(cls, label: str, x: Sequence[float], points: Sequence[Estimate]) -> Self:
        """Return the curve through estimates, with their intervals."""
        low, high = [point.low for point in points], [point.high for point in points]
        return cls(label=label, x=list(x), y=[point.value for point in points], low=low, high=high)

    def __post_init__(self) -> None:
        """Refuse lists of different lengths."""
        lists = {"x": self.x, "y": self.y, "low": self.low, "high": self.high}
        lengths = {name: len(numbers) for name, numbers in lists.items() if numbers is not None}
        if len(set(lengths.values())) != 1 or (self.low is None) != (self.high is None):
            raise ValueError(f"curve {self.label!r}: x, y and both ends need the same length, found {lengths}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Curves over one pair of axes."""

    name: str
    """Stem of its file."""
    title: str
    x_label: str
    y_label: str
    curves: list[Curve]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells as they are shown."""

    title: str = ""
    """Printed above it; may be empty."""
    header: list[str]
    rows: list[list[str]]

    def __post_init__(self) -> None:
        """Refuse rows of another length than the header."""
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row needs {len(self.header)} cells, found {len(row)}: {row}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One experiment on the page."""

    name: str
    """As `--only` takes it."""
    title: str
    statement: str
    """What the lecture says."""
    formula: str = ""
    """Shown verbatim in its own block; empty if there is none."""
    method: str
    """What was measured, and what was decided beforehand: sizes, seeds, what counts as a success."""
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    finding: str
    """Computed from the numbers: the result, and whether it agrees with the statement."""
