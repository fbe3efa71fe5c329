"""The best step of a run by a metric of its evaluations, and how long the run has waited for a better one."""

from dataclasses import dataclass
from typing import Any

from rlhf.errors import ConfigError
from rlhf.training.storage.schema import Form

SHOWN = 12
"""Metrics that a refusal lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BestRule:
    """What makes one evaluation better than another."""

    metric: str
    """A name in the row of an evaluated step."""
    greater_is_better: bool
    load_at_end: bool
    """Whether the run's result has the weights of the best step, not those of the last one."""
    patience: int | None = None
    """Evaluations in a row without an improvement after which the run ends; None: it never ends by this."""
    min_delta: float = 0.0
    """An improvement beyond the best so far must be larger than this to count for the patience."""


class Best:
    """Remembers the best evaluation."""

    def __init__(self, rule: BestRule) -> None:
        """Begin without any."""
        self.rule = rule
        self.step: int | None = None
        """The best step so far, 1-based."""
        self.value = 0.0
        self.num_worse = 0
        """Evaluations in a row that were no improvement."""

    def judge(self, step: int, value: float) -> bool:
        """Compare the evaluation after a step with the best so far; True if it is better. NaN never is."""
        gain = value - self.value if self.rule.greater_is_better else self.value - value
        is_first = self.step is None and value == value
        counts = is_first or (self.step is not None and gain > self.rule.min_delta)
        self.num_worse = 0 if counts else self.num_worse + 1
        is_better = is_first or (self.step is not None and gain > 0)
        if is_better:
            self.step, self.value = step, value
        return is_better

    @property
    def verdict(self) -> str | None:
        """Why the run ends here; None while it goes on."""
        if self.rule.patience is None or self.num_worse < self.rule.patience:
            return None
        than = "" if self.step is None else f" than {self.value:.4g} of step {self.step}"
        by = f" by more than {self.rule.min_delta:g}" if self.rule.min_delta else ""
        return f"early_stopping: {self.rule.metric} was not better{than}{by} in {self.num_worse} evaluations"

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        best = [] if self.step is None else [{"step": self.step, "value": self.value}]
        return {"best": best, "num_worse": self.num_worse}

    @staticmethod
    def form() -> dict[str, Form]:
        """Return the form of `state`."""
        return {"best": [{"step": int, "value": float}], "num_worse": int}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
        self.step, self.value, self.num_worse = None, 0.0, state["num_worse"]
        for best in state["best"]:
            self.step, self.value = best["step"], float(best["value"])

    def forget(self) -> None:
        """Begin anew, since the checkpoint of the best step is gone."""
        self.step, self.value = None, 0.0


def value_of(metric: str, row: dict[str, float]) -> float:
    """Return the metric of an evaluated step.

    Raises:
        ConfigError: the step has no such metric; lists those that it has.
    """
    if metric not in row:
        names = sorted(row, key=lambda name: (not name.startswith("eval"), name))
        raise ConfigError(f"best.metric: there is no {metric!r}; an evaluated step has {', '.join(names[:SHOWN])}")
    return float(row[metric])
