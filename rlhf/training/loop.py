"""The loop around a stage's steps: resume, log, evaluate, save, stop on a signal."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rlhf.errors import CheckpointError, DataError, GuardStop, Terminated
from rlhf.training.processes import Processes
from rlhf.training.signals import StopFlag
from rlhf.training.storage.checkpoint import JSON, Checkpoint, CheckpointStore
from rlhf.training.storage.run_directory import RunDirectory
from rlhf.training.telemetry.metrics import MetricsLog, Trackers
from rlhf.training.telemetry.profile import NO_PROFILE, Profile
from rlhf.training.telemetry.progress import Progress


class NothingLeft(Exception):
    """A stage has no data for another step, so it is done."""


class Steps(Protocol):
    """What the loop needs from a stage."""

    def step(self, index: int) -> dict[str, float]:
        """Do step `index` (0-based) and return its metrics, the same on every process.

        Raises:
            NothingLeft: on every process, when no data is left for a step.
        """

    def evaluate(self) -> dict[str, float]:
        """Return the metrics of held-out data; empty when there are none."""

    def saved(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return everything that a resumed run needs: groups of tensors, and JSON. Called on every process."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to what `saved` returned."""


class Observer(Protocol):
    """Gets called after each thing the loop does, on every process."""

    wants_stop: bool
    """Whether the run is to end after this step, as it ends after its last one; one process is enough."""

    def stepped(self, step: int, metrics: dict[str, float]) -> None:
        """Step `step` (1-based) is done."""

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


class Loop:
    """Runs a stage's steps in a run directory: `run(resume())`."""

    def __init__(
        self,
        steps: Steps,
        settings: LoopSettings,
        directory: RunDirectory,
        processes: Processes,
        *,
        config: Mapping[str, Any],
        fingerprint: Mapping[str, JSON],
        profile: Profile = NO_PROFILE,
    ) -> None:
        """Describe the loop.

        Args:
            steps: the steps of the stage.
            settings: when the loop does what.
            directory: the run directory, already entered.
            processes: all do the same steps.
            config: the resolved config, shown by trackers.
            fingerprint: what must not change for a checkpoint to be resumed, under names that a user knows.
            profile: measures evaluations and checkpoints, and adds its figures to the metrics.
        """
        self.steps = steps
        self.settings = settings
        self.directory = directory
        self.processes = processes
        self.profile = profile
        self._config = config
        self._observer: Observer | None = None
        self._last: dict[str, float] = {}  # metrics of this process's last step
        self._evaluated_at = 0
        self._num_rows: int | None = None  # of the metrics, when the checkpoint was saved from which the run resumes
        self._metrics_log: MetricsLog | None = None
        self._store = CheckpointStore(
            directory.checkpoints,
            keep=settings.checkpoints_kept,
            fingerprint={**fingerprint, "number of processes": processes.num},
        )

    def resume(self) -> int:
        """Go back to the newest checkpoint that verifies, or to the named one; return how many steps are done.

        Raises:
            CheckpointError: the checkpoint was written with another fingerprint or does not fit, the named one is
                damaged, all are, or there is none beside the result of a shorter run.
        """
        checkpoint = self._checkpoint()
        if checkpoint is None:
            self.directory.refuse_to_start_over()
            return 0
        self.processes.say(f"resuming from {checkpoint.path}")
        if checkpoint.longer is not None:
            self.processes.say(longer_run(checkpoint.longer, checkpoint.step))
        if self.processes.is_main and checkpoint.path.parent == self.directory.checkpoints:
            self._store.tidy(checkpoint.step)
        self.steps.restore(checkpoint)
        self._num_rows = checkpoint.rows
        return checkpoint.step

    def _checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to resume from; None if the run has none."""
        if self.directory.resume not in ("auto", "never"):
            return self._store.open(Path(self.directory.resume))
        skipped: list[str] = []
        checkpoint = self._store.latest(on_skip=skipped.append)
        for line in skipped:
            self.processes.say(line)
        if checkpoint is None and skipped:
            raise CheckpointError(
                f"{self.directory.checkpoints}: no checkpoint is whole ({'; '.join(skipped)}); put one back, or remove "
                "this directory to begin again at the first step"
            )
        return checkpoint

    def run(self, start: int, observer: Observer | None = None) -> None:
        """Do every step after the first `start`, and call `observer` after each.

        Raises:
            Terminated: a signal came, or the launcher is gone; a checkpoint was saved.
            GuardStop: a guard stopped the run; it names the last good checkpoint.
            DataError: there was no data for the first step.
        """
        self._observer = observer
        self.directory.mark_unfinished()
        metrics_log = MetricsLog(self.directory.metrics, enabled=self.processes.is_main)
        metrics_log.cut_back(start)
        if self._num_rows is not None:
            for line in metrics_log.problems(start, self._num_rows, self.settings.log_every):
                self.processes.say(f"warning: {line}")
        self._metrics_log = metrics_log
        trackers = Trackers(
            self.processes.accelerator, self.directory.events, project="rlhf", config=self._config, first_step=start + 1
        )
        bar = Progress(self.settings.num_steps, self.settings.description, enabled=self.processes.is_main, start=start)
        try:
            with metrics_log, bar, StopFlag() as stop:
                self.profile.start()
                for index in range(start, self.settings.num_steps):
                    try:
                        is_last = self._one(index, metrics_log, trackers, bar)
                    except NothingLeft:
                        self._ended_early(index, metrics_log, trackers)
                        break
                    if self.processes.any(stop.requested or self.processes.is_orphan):
                        self._stop(index + 1, stop)
                    if is_last:
                        break
        except GuardStop as guard:
            raise GuardStop(f"{guard}; {self._last_good()}") from guard
        finally:
            trackers.close()

    def _one(self, index: int, metrics_log: MetricsLog, trackers: Trackers, bar: Progress) -> bool:
        """Do one step and everything due after it; True when it was the last.

        Raises:
            NothingLeft: there was no data for the step.
        """
        started = time.perf_counter()
        metrics = self.steps.step(index)
        metrics["seconds"] = time.perf_counter() - started
        done = index + 1
        self._tell(done, metrics, metrics_log)
        is_last = done == self.settings.num_steps or self._is_stopped(done)
        is_evaluated = is_last or _is_due(done, self.settings.eval_every)
        if is_evaluated:
            metrics |= self._evaluated(done)
            is_last = is_last or self._is_stopped(done)
        self._last = metrics
        if is_evaluated or _is_due(done, self.settings.log_every):
            metrics |= self.profile.row()
            metrics_log.write(done, metrics)
            trackers.log(done, metrics)
        bar.update(done, {name: metrics[name] for name in self.settings.shown if name in metrics})
        if not is_last and _is_due(done, self.settings.checkpoint_every):
            with self.profile.phases("checkpoint"):
                self._save(done)
        return is_last

    def _tell(self, done: int, metrics: dict[str, float], metrics_log: MetricsLog) -> None:
        """Call the observer after a step."""
        try:
            if self._observer is not None:
                self._observer.stepped(done, metrics)
        except BaseException:
            metrics_log.write(done, metrics)  # the step is done, whatever the observer makes of it
            raise

    def _is_stopped(self, done: int) -> bool:
        """Whether the observer of any process wants to end the run after this step; says so."""
        if self._observer is None or not self.processes.any(self._observer.wants_stop):
            return False
        self.processes.say(f"stopped by a callback after step {done} of {self.settings.num_steps}")
        return True

    def _ended_early(self, done: int, metrics_log: MetricsLog, trackers: Trackers) -> None:
        """Do what is due after the last step, now that we know that it was the last."""
        if done == 0:
            raise DataError("the prompts ran out before the first step had a full batch")
        self.processes.say(f"nothing left after step {done} of {self.settings.num_steps}")
        if self._last and self._evaluated_at != done:
            metrics = self._last | self._evaluated(done)
            metrics_log.cut_back(done - 1)  # the row of this step, if it has one, is written again
            metrics_log.write(done, metrics)
            trackers.log(done, metrics)

    def _evaluated(self, done: int) -> dict[str, float]:
        with self.profile.phases("evaluation"):
            metrics = self.steps.evaluate()
        self._evaluated_at = done
        if self._observer is not None and metrics:
            self._observer.evaluated(done, metrics)
        return metrics

    def _save(self, done: int) -> None:
        tensors, state = self.steps.saved()
        problem = None
        if self.processes.is_main:
            try:
                self._store.save(done, tensors, state, rows=self._rows_on_disk())
            except Exception as error:  # raised below, once the other processes know
                problem = error
        if self.processes.any(problem is not None):
            raise problem or CheckpointError("another process could not save a checkpoint")
        if self._observer is not None:
            self._observer.saved(self._store.path_of(done))

    def _last_good(self) -> str:
        """Name the newest checkpoint that is whole."""
        checkpoint = self._store.latest(on_skip=lambda line: None)
        if checkpoint is None:
            return "no checkpoint was saved (checkpoints.every)"
        return f"the last good checkpoint is {checkpoint.path}"

    def _rows_on_disk(self) -> int | None:
        """Wait until all rows of the metrics are on the disk, and count them: a checkpoint stands for them too."""
        if self._metrics_log is None:
            return None
        self._metrics_log.sync()
        return self._metrics_log.num_rows

    def _stop(self, done: int, stop: StopFlag) -> None:
        if done < self.settings.num_steps:
            self._save(done)
            cause = "the launcher is gone: stopped" if self.processes.is_orphan else "stopped by a signal"
            stopped = Terminated(f"{cause} after step {done}; run the same command again to go on")
            if stop.requested:  # otherwise the signal reached only another process
                stopped.exit_status = stop.exit_status
            raise stopped


def longer_run(longer: str, done: int) -> str:
    """Say what becomes of the schedules when a run goes on whose first `done` steps were those of a shorter one."""
    return (
        f"{longer}: after step {done} the learning rate, and what else has a schedule, follows that of the longer run"
    )


def _is_due(done: int, every: int | None) -> bool:
    return every is not None and done % every == 0
