"""A number with its interval, and how to print both."""

import math
from dataclasses import dataclass


def shown(number: float, digits: int = 3) -> str:
    """Return a number with `digits` significant digits; a large one without an exponent: `262,000`."""
    if not math.isfinite(number):
        return f"{number}"
    if abs(number) < 10.0**digits:
        return f"{number:#.{digits}g}".rstrip(".")
    return f"{float(f'{number:.{digits}g}'):,.0f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number and its interval."""

    value: float
    low: float
    high: float

    def shown(self, digits: int = 3) -> str:
        """Return `2.99 [2.95, 3.03]`, with `digits` significant digits."""
        return f"{shown(self.value, digits)} [{shown(self.low, digits)}, {shown(self.high, digits)}]"

    def holds(self, number: float) -> bool:
        """Whether the interval contains `number`."""
        return self.low <= number <= self.high

    def __format__(self, spec: str) -> str:
        """Return `85.0% [79.4%, 89.3%]` for `f"{share:.1%}"`: each number in a format of Python's."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"
