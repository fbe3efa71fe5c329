"""The course of a run: what it has seen of the rules that end it early, take it back, or choose its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.training.ending.best import Best, BestRule, value_of
from rlhf.training.ending.ceiling import Ceiling, CeilingRule
from rlhf.training.ending.rollback import Rollback, RollbackRule
from rlhf.training.processes import Processes
from rlhf.training.storage.checkpoint import Checkpoint
from rlhf.training.storage.schema import Form, check_form


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of a run; None where there is none."""

    best: BestRule | None = None
    ceiling: CeilingRule | None = None
    rollback: RollbackRule | None = None


NO_RULES = Rules()


class Course:
    """Follows the rules; all processes call each method together and come to the same answer."""

    def __init__(self, rules: Rules, processes: Processes) -> None:
        """Begin before the first step."""
        self.best = None if rules.best is None else Best(rules.best)
        self.ceiling = None if rules.ceiling is None else Ceiling(rules.ceiling)
        self.rollback = None if rules.rollback is None else Rollback(rules.rollback)
        self._processes = processes

    def stepped(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look at a step, and return what it adds to the step's metrics."""
        added: dict[str, float] = {}
        if self.ceiling is not None:
            rule = self.ceiling.rule
            added[rule.logged_as] = self.ceiling.add(self._agreed(metrics[rule.metric]))
        if self.rollback is not None:
            added["rollback/count"] = float(self.rollback.num_done)
        return added

    def evaluated(self, step: int, metrics: dict[str, float]) -> tuple[dict[str, float], bool]:
        """Look at an evaluation after `step`; `metrics` are all of that step.

        Returns:
            What it adds to them, and whether this step is the best so far.

        Raises:
            ConfigError: the metric that tells the best is not there.
        """
        if self.best is None:
            return {}, False
        is_best = self.best.judge(step, self._agreed(value_of(self.best.rule.metric, metrics)))
        if self.best.step is None:
            return {}, False
        return {"best/step": float(self.best.step), "best/value": self.best.value}, is_best

    @property
    def verdict(self) -> str | None:
        """Why the run ends after this step; None while it goes on."""
        found = [each.verdict for each in (self.ceiling, self.best) if each is not None]
        return next((verdict for verdict in found if verdict is not None), None)

    @property
    def best_step(self) -> int | None:
        """The step whose checkpoint must stay."""
        return None if self.best is None else self.best.step

    def state(self) -> dict[str, Any] | None:
        """Return what a checkpoint holds of it; None where there are no rules."""
        parts = self._parts()
        return {name: value for part in parts for name, value in part.state().items()} if parts else None

    def load(self, checkpoint: Checkpoint) -> None:
        """Go back to what `state` returned when a checkpoint was saved.

        Raises:
            CheckpointError: the checkpoint holds something else.
        """
        parts = self._parts()
        if not parts:
            return
        form: dict[str, Form] = {name: value for part in parts for name, value in part.form().items()}
        course = checkpoint.course
        check_form(f"{checkpoint.path}: course", course, form)
        for part in parts:
            part.load(course)

    def _parts(self) -> list[Best | Ceiling | Rollback]:
        return [part for part in (self.best, self.ceiling, self.rollback) if part is not None]

    def _agreed(self, value: float) -> float:
        """Return the first process's value: one process must not end a run in which the others go on."""
        return float(self._processes.gathered([value])[0])
