"""Mean and standard deviation of scores over all processes: of all so far, or of one batch."""

import math
from collections.abc import Sequence

from rlhf.training.processes import Processes
from rlhf.training.storage.schema import Form

EQUAL_SHARE = 1e-6
"""Scores whose standard deviation is below this share of their mean are equal up to float32 rounding."""

FORM: dict[str, Form] = {"count": float, "mean": float, "squares": float}
"""Of a saved state."""


class RunningScale:
    """Mean and variance of all scores seen so far, over all processes (Chan et al. 1979, parallel update)."""

    def __init__(self) -> None:
        self.count = 0.0
        self.mean = 0.0
        self.squares = 0.0

    @property
    def std(self) -> float:
        """Biased standard deviation; 1 while all scores are equal (dividing by rounding errors would blow them up)."""
        std = math.sqrt(self.squares / self.count) if self.count else 0.0
        return std if std > EQUAL_SHARE * abs(self.mean) else 1.0

    def update(self, scores: Sequence[float], processes: Processes) -> None:
        """Add the scores of one batch; every process calls this, even one without scores."""
        count, total = processes.sums([len(scores), sum(scores)])
        if not count:
            return
        mean = total / count
        (squares,) = processes.sums([sum((score - mean) ** 2 for score in scores)])
        delta, joint = mean - self.mean, self.count + count
        self.squares += squares + delta**2 * self.count * count / joint
        self.mean += delta * count / joint
        self.count = joint

    def state(self) -> dict[str, float]:
        """Return what a checkpoint holds."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load(self, state: dict[str, float]) -> None:
        """Restore a saved state."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
