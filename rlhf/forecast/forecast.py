"""The forecast of a run as it is said, and put right by the stages that are done."""

from collections.abc import Mapping

from rlhf.config import RunConfig
from rlhf.forecast.expected import Expected, expected_of

TITLES = {"sft": "sft", "reward_model": "reward model", "ppo": "ppo", "evaluate": "evaluation"}
MINUTES_FROM = 100.0
"""Seconds in all from which times are said in minutes."""
HOURS_FROM = 100.0 * 60
"""Seconds in all from which times are said in hours."""
TELLING = 20.0
"""Seconds that done stages must have been expected to take before they say how far off the forecast is."""


class Forecast:
    """The times of stages: expected, and as far as they are done, measured."""

    def __init__(self, expected: Mapping[str, Expected]) -> None:
        """Take what is expected of each stage that has something to do, in their order."""
        self._expected = expected
        self._told = self._taken = 0.0

    def opening(self) -> list[str]:
        """Return what is said at the start of a run; nothing where everything is complete."""
        if not self._expected:
            return []
        known = [each.seconds for each in self._expected.values() if each.seconds is not None]
        total = sum(known)
        whole = all(each.seconds is not None and not each.reason for each in self._expected.values())
        parts = [f"{TITLES[name]} {_short(each.seconds, total)}" for name, each in self._expected.items()]
        about = f"about {_long(total)} here" if known else "how long this takes here cannot be told"
        more = "" if whole or not known else ", and what cannot be told"
        return [f"{about}{more}: {', '.join(parts)}", *self._reasons()]

    def seconds(self, stage: str) -> float | None:
        """Return the seconds of a stage that begins, put right by the stages before; None where they cannot be told."""
        expected = self._expected.get(stage)
        return None if expected is None or expected.seconds is None else expected.seconds * self._factor

    def before(self, stage: str) -> str:
        """Return what is said of a stage that begins: its time, put right by that of the stages before; or nothing."""
        seconds = self.seconds(stage)
        if seconds is None:
            return ""
        why = f" (the stages so far took {self._factor:.1f} times as long as forecast)" if self._is_off else ""
        most = "at most " if self._expected[stage].may_end_early else ""
        return f", {most}about {_long(seconds)}{why}"

    def after(self, stage: str, seconds: float) -> str:
        """Return what was forecast for a stage that took so long, to be said beside it; or nothing."""
        expected = self._expected.get(stage)
        if expected is None or expected.seconds is None:
            return ""
        if not expected.reason and not expected.may_end_early:
            self._told, self._taken = self._told + expected.seconds, self._taken + seconds
        return f" (forecast at the start: {expected.seconds:.0f} s)"

    @property
    def _factor(self) -> float:
        """How much longer the stages so far took than forecast; 1 while they were too short to tell."""
        return self._taken / self._told if self._told >= TELLING else 1.0

    @property
    def _is_off(self) -> bool:
        return abs(self._factor - 1) >= 0.1

    def _reasons(self) -> list[str]:
        told = {name: each for name, each in self._expected.items() if each.reason}
        return [
            f"{TITLES[name]}: {each.reason if each.seconds is not None else f'cannot be told - {each.reason}'}"
            for name, each in told.items()
        ]


def forecast_of(recipe: RunConfig) -> Forecast:
    """Return the forecast of a recipe, in a second or two; a part that cannot be told is told as such."""
    return Forecast(expected_of(recipe))


def _long(seconds: float) -> str:
    unit, name = _unit(seconds)
    return f"{_rounded(seconds / unit, unit)} {name}"


def _short(seconds: float | None, total: float) -> str:
    """Return a part of a total in the total's unit, "?" where it is not known."""
    unit, _ = _unit(total)
    if seconds is None:
        return "?"
    return _rounded(seconds / unit, unit) if seconds >= unit / 2 or unit == 1.0 else "<1"


def _unit(total: float) -> tuple[float, str]:
    """Return the seconds of the unit in which a total is said, and its name."""
    if total >= HOURS_FROM:
        return 3600.0, "h"
    return (60.0, "min") if total >= MINUTES_FROM else (1.0, "s")


def _rounded(number: float, unit: float) -> str:
    return f"{number:.1f}" if unit == 3600.0 else f"{number:.0f}"
