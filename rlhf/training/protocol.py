"""What the loop and a stage need from each other: steps, an observer, and when the loop does what."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rlhf.training.ending.course import NO_RULES, Rules
from rlhf.training.storage.checkpoint import Checkpoint


class NothingLeft(Exception):
    """A stage has no data for another step, so it is done."""


class Steps(Protocol):
    """What the loop needs from a stage."""

    def step(self, index: int) -> dict[str, float]:
        """Do step `index` (0-based) and return its metrics, the same on every process.

        Raises:
            NothingLeft: on every process, when no data is left for a step.
            GuardStop: on every process, when a guard stops the run.
        """

    def evaluate(self) -> dict[str, float]:
        """Return the metrics of held-out data; empty when there are none."""

    def saved(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything that a resumed run needs: groups of tensors, and JSON. Called on every process."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to what `saved` returned, from whatever state, also that of a step that failed halfway."""

    def take_weights(self, checkpoint: Checkpoint) -> None:
        """Take the weights of a checkpoint, and nothing else."""

    def scale_learning_rates(self, factor: float) -> None:
        """Multiply the learning rates of all further steps by `factor`, in place of an earlier one."""


class Observer(Protocol):
    """Gets called after each thing the loop does, on every process."""

    wants_stop: bool
    """Whether the run is to end after this step, as it ends after its last one; one process is enough."""

    def stepped(self, step: int, metrics: dict[str, float]) -> None:
        """Step `step` (1-based) is done; after a rollback the same steps come again."""

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Held-out data were evaluated after a step."""

    def saved(self, path: Path) -> None:
        """A checkpoint is on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """When the loop does what; all counts in steps of the stage."""

    num_steps: int
    log_every: int
    checkpoint_every: int | None
    checkpoints_kept: int
    eval_every: int | None
    description: str
    """Shown by the progress bar."""
    shown: tuple[str, ...]
    """Metrics that the progress bar shows."""
    rules: Rules = NO_RULES
    """What ends the run early, and which weights are its result."""
