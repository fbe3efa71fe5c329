"""A run that ends well when the mean of a metric over its last steps reaches a limit."""

import math
from dataclasses import dataclass
from typing import Any

from rlhf.training.storage.schema import Form


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingRule:
    """Which metric, and how high it may rise."""

    metric: str
    """A name in the row of every step."""
    limit: float
    window: int
    """Steps whose mean is compared; before so many steps are done the run goes on."""
    key: str
    """Of the configuration, for the message."""

    @property
    def logged_as(self) -> str:
        """The name of the mean in the logs."""
        return f"{self.metric}_window"


class Ceiling:
    """Remembers the metric of the last steps."""

    def __init__(self, rule: CeilingRule) -> None:
        """Begin without any."""
        self.rule = rule
        self._recent: list[float] = []

    def add(self, value: float) -> float:
        """Add the metric of a step; return the mean over the window, or over the steps so far."""
        self._recent = [*self._recent, value][-self.rule.window :]
        return self._mean

    @property
    def verdict(self) -> str | None:
        """Why the run ends here; None while it goes on."""
        rule = self.rule
        if len(self._recent) < rule.window or self._mean < rule.limit:
            return None
        return f"{rule.metric} was {self._mean:.4g} over the last {rule.window} steps, {rule.key} is {rule.limit:g}"

    @property
    def _mean(self) -> float:
        return math.fsum(self._recent) / len(self._recent)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return {"recent": list(self._recent)}

    @staticmethod
    def form() -> dict[str, Form]:
        """Return the form of `state`."""
        return {"recent": [float]}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
        self._recent = [float(value) for value in state["recent"]]
