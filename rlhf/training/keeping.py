"""What a run keeps: checkpoints with the stage's state and the run's course in them, and the weights of its result."""

from collections.abc import Mapping
from pathlib import Path

from rlhf.errors import CheckpointError
from rlhf.training.ending.course import Course
from rlhf.training.processes import Processes
from rlhf.training.protocol import Steps
from rlhf.training.storage.checkpoint import JSON, Checkpoint, CheckpointStore
from rlhf.training.storage.run_directory import RunDirectory


class Keeping:
    """Saves a stage and its course, and goes back to what was saved; all processes call each method together."""

    def __init__(
        self,
        steps: Steps,
        course: Course,
        directory: RunDirectory,
        processes: Processes,
        *,
        keep: int,
        fingerprint: Mapping[str, JSON],
    ) -> None:
        """Describe what is kept.

        Args:
            steps: the steps of the stage.
            course: what the run has seen of its rules.
            directory: the run directory, already entered.
            processes: the first one writes.
            keep: number of newest checkpoints that stay; the one of the best step stays beside them.
            fingerprint: what must not change for a checkpoint to be resumed, under names that a user knows.
        """
        self.num_rows: int | None = None
        """Rows that the metrics had when the checkpoint was saved from which the run goes on."""
        self._steps = steps
        self._course = course
        self._directory = directory
        self._processes = processes
        self._store = CheckpointStore(
            directory.checkpoints,
            keep=keep,
            fingerprint={**fingerprint, "number of processes": processes.num, **sharded_by(processes)},
        )

    def resume(self) -> int:
        """Go back to the newest checkpoint that verifies, or to the named one; return how many steps are done.

        Raises:
            CheckpointError: as `Loop.resume` says.
        """
        checkpoint = self._checkpoint()
        if checkpoint is None:
            self._directory.refuse_to_start_over()
            return 0
        self._processes.say(f"resuming from {checkpoint.path}")
        if checkpoint.longer is not None:
            self._processes.say(longer_run(checkpoint.longer, checkpoint.step))
        self.go_to(checkpoint)
        if self._processes.is_main and checkpoint.path.parent == self._directory.checkpoints:
            self._store.tidy(checkpoint.step, self._course.best_step)
        return checkpoint.step

    def _checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to resume from; None if the run has none."""
        if self._directory.resume not in ("auto", "never"):
            return self._store.open(Path(self._directory.resume))
        skipped: list[str] = []
        checkpoint = self._store.latest(on_skip=skipped.append)
        for line in skipped:
            self._processes.say(line)
        if checkpoint is None and skipped:
            raise CheckpointError(
                f"{self._directory.checkpoints}: no checkpoint is whole ({'; '.join(skipped)}); put one back, or "
                "remove this directory to begin again at the first step"
            )
        return checkpoint

    def go_to(self, checkpoint: Checkpoint) -> None:
        """Put the stage and the course back to a checkpoint."""
        self._steps.restore(checkpoint)
        self._course.load(checkpoint)
        self.num_rows = checkpoint.rows
        best = self._course.best
        if best is not None and best.step is not None and not self._store.holds(best.step):
            self._processes.say(
                f"warning: {self._store.path_of(best.step)}, the best so far, is damaged or gone; the best is chosen "
                "among the steps from here on"
            )
            best.forget()

    def last_good(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole."""
        return self._store.latest(on_skip=lambda line: None)

    def save(self, done: int, rows: int | None) -> Path:
        """Save a checkpoint after a step, for which the metrics have so many rows.

        Raises:
            CheckpointError: on every process; older checkpoints are untouched.
        """
        tensors, state = self._steps.saved()
        problem = None
        if self._processes.is_main:
            course, spared = self._course.state(), self._course.best_step
            try:
                self._store.save(done, tensors, state, rows=rows, course=course, spared=spared)
            except Exception as error:  # raised below, once the other processes know
                problem = error
        if self._processes.any(problem is not None):
            raise problem or CheckpointError("another process could not save a checkpoint")
        return self._store.path_of(done)

    def choose_result(self, done: int) -> None:
        """Say which step was the best, and take its weights if the rules say so; `done` steps were the run.

        Raises:
            CheckpointError: the checkpoint of the best step is damaged.
        """
        best = self._course.best
        if best is None or best.step is None:
            return
        takes = best.rule.load_at_end
        if takes and best.step != done:
            self._steps.take_weights(self._store.open(self._store.path_of(best.step)))
        result = best.step if takes else done
        self._processes.say(
            f"best: step {best.step}, {best.rule.metric} {best.value:.4g}; the result has the weights of step {result}"
        )


def sharded_by(processes: Processes) -> dict[str, JSON]:
    """Return how weights are in shards, if they are; a checkpoint must match: another way sums in another order."""
    return {} if processes.sharding.name == "none" else {"sharding": processes.sharding.name}


def last_good(checkpoint: Checkpoint | None) -> str:
    """Name the newest checkpoint that is whole."""
    if checkpoint is None:
        return "no checkpoint was saved (checkpoints.every)"
    return f"the last good checkpoint is {checkpoint.path}"


def longer_run(longer: str, done: int) -> str:
    """Say what becomes of the schedules when a run goes on whose first `done` steps were those of a shorter one."""
    return (
        f"{longer}: after step {done} the learning rate, and what else has a schedule, follows that of the longer run"
    )
