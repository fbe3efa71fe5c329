"""An axis: from numbers to places on the page, with round ticks."""

import math
from dataclasses import dataclass

_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale."""

    low: float
    high: float
    start: float
    """The place of `low`, in units of the drawing."""
    end: float
    """The place of `high`; below `start` on an axis that points up."""

    def at(self, value: float) -> float:
        """Return the place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def axis_over(low: float, high: float, start: float, end: float, *, margin: float = 0.05) -> Axis:
    """Return the axis over a range, widened by a share of it; a range without width gets one."""
    width = high - low
    if not width > 1e-12 * max(abs(low), abs(high)):
        width = abs(high) or 1.0
        low, high = low - width / 2, high + width / 2
    return Axis(low - margin * width, high + margin * width, start, end)


def ticks(axis: Axis, most: int = 5) -> list[float]:
    """Return round numbers within an axis, at most `most` and the one at its end."""
    rough = (axis.high - axis.low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * factor for factor in _ROUND if power * factor >= rough), 10 * power)
    first = math.ceil(axis.low / step - 1e-9)
    last = math.floor(axis.high / step + 1e-9)
    return [step * number for number in range(first, last + 1)]


def short(value: float) -> str:
    """Return a number with four digits at most, as `0.05`, `1500`, `2e-05`; a minus is a hyphen."""
    if value == 0 or abs(value) < 1e-12:
        return "0"
    text = f"{value:.4g}"
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else text
