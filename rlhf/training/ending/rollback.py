"""How often a run may go back to its last good checkpoint after a guard, and how much slower it then learns."""

from dataclasses import dataclass
from typing import Any

from rlhf.training.storage.schema import Form


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRule:
    """How often, and how much slower."""

    times: int
    lr_factor: float
    """Each rollback multiplies the learning rates by this."""


class Rollback:
    """Counts."""

    def __init__(self, rule: RollbackRule) -> None:
        """Begin at none."""
        self.rule = rule
        self.num_done = 0

    @property
    def is_spent(self) -> bool:
        """Whether the run may not go back once more."""
        return self.num_done >= self.rule.times

    @property
    def factor(self) -> float:
        """What multiplies the learning rates now."""
        return float(self.rule.lr_factor**self.num_done)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return {"num_rollbacks": self.num_done, "lr_factor": self.factor}

    @staticmethod
    def form() -> dict[str, Form]:
        """Return the form of `state`."""
        return {"num_rollbacks": int, "lr_factor": float}

    def load(self, state: dict[str, Any]) -> None:
        """Go back to what `state` returned."""
        self.num_done = state["num_rollbacks"]
