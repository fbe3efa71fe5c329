"""The loop around a stage's steps: resume, log, evaluate, save, stop on a signal, go back after a guard."""

import time
from collections.abc import Mapping
from typing import Any

from rlhf.errors import DataError, GuardStop, Terminated
from rlhf.training.ending.course import Course
from rlhf.training.keeping import Keeping, last_good
from rlhf.training.processes import Processes
from rlhf.training.protocol import LoopSettings, NothingLeft, Observer, Steps
from rlhf.training.signals import StopFlag
from rlhf.training.storage.checkpoint import JSON
from rlhf.training.storage.run_directory import RunDirectory
from rlhf.training.telemetry.last_step import last_of
from rlhf.training.telemetry.metrics import MetricsLog
from rlhf.training.telemetry.profile import NO_PROFILE, Profile
from rlhf.training.telemetry.progress import Progress
from rlhf.training.telemetry.record import Record
from rlhf.training.telemetry.trackers import Trackers


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
        self._metrics_log: MetricsLog | None = None
        self._course = Course(settings.rules, processes)
        self._keeping = Keeping(
            steps,
            self._course,
            directory,
            processes,
            keep=settings.checkpoints_kept,
            fingerprint=fingerprint,
        )

    def resume(self) -> int:
        """Go back to the newest checkpoint that verifies, or to the named one; return how many steps are done.

        Raises:
            CheckpointError: the checkpoint was written with another fingerprint or does not fit, the named one is
                damaged, all are, or there is none beside the result of a shorter run.
        """
        return self._keeping.resume()

    def run(self, start: int, observer: Observer | None = None) -> None:
        """Do every step after the first `start`, and call `observer` after each.

        Raises:
            Terminated: a signal came, or the launcher is gone; a checkpoint was saved.
            GuardStop: a guard stopped the run; it names the last good checkpoint.
            DataError: there was no data for the first step.
        """
        self._observer = observer
        self.directory.mark_unfinished()
        with StopFlag() as stop:
            if self._course.rollback is not None:
                self.steps.scale_learning_rates(self._course.rollback.factor)
                self._save(start, self._keeping.num_rows if start else 0)  # so that there is always one to go back to
            while True:
                try:
                    done = self._run(start, stop)
                    break
                except GuardStop as guard:
                    start = self._rolled_back(guard)
        self._keeping.choose_result(done)

    def _run(self, start: int, stop: StopFlag) -> int:
        """Do every step after the first `start`; return the number of the last one, counted from 1."""
        with self._recording(start) as record:
            self.profile.start()
            for index in range(start, self.settings.num_steps):
                try:
                    is_last = self._one(index, record)
                except NothingLeft:
                    self._ended_early(index, record)
                    return index
                if is_last:
                    return index + 1
                if self.processes.any(stop.requested or self.processes.is_orphan):
                    self._stop(index + 1, stop)
        return max(start, self.settings.num_steps)

    def _recording(self, start: int) -> Record:
        """Open what the rows of the run go to, without those of steps after the first `start`."""
        log = MetricsLog(self.directory.metrics, enabled=self.processes.is_main)
        log.cut_back(start)
        if self._keeping.num_rows is not None:
            for line in log.problems(start, self._keeping.num_rows, self.settings.log_every):
                self.processes.say(f"warning: {line}")
        self._metrics_log = log
        trackers = Trackers(
            self.processes.accelerator, self.directory.events, project="rlhf", config=self._config, first_step=start + 1
        )
        bar = Progress(self.settings.num_steps, self.settings.description, enabled=self.processes.is_main, start=start)
        return Record(log, trackers, bar)

    def _rolled_back(self, guard: GuardStop) -> int:
        """Go back to the last good checkpoint, with smaller learning rates; return how many steps are done there.

        Raises:
            GuardStop: the run may not go back, or not once more.
        """
        rollback, checkpoint = self._course.rollback, self._keeping.last_good()
        if rollback is None or rollback.is_spent or checkpoint is None:
            spent = "" if rollback is None else f"; the run went back {rollback.num_done} times"
            raise GuardStop(f"{guard}{spent}; {last_good(checkpoint)}") from guard
        num_done = rollback.num_done + 1
        self._keeping.go_to(checkpoint)
        rollback.num_done = num_done
        self.steps.scale_learning_rates(rollback.factor)
        self._last, self._evaluated_at = {}, 0
        self.processes.say(
            f"guard: {guard}; back to {checkpoint.path} with learning rates times {rollback.factor:g} "
            f"(rollback {num_done} of {rollback.rule.times})"
        )
        self.processes.wait()  # the checkpoint is replaced below, once all have read it
        self._save(checkpoint.step, checkpoint.rows)  # with the new factor: a run that is killed goes on with it
        return checkpoint.step

    def _one(self, index: int, record: Record) -> bool:
        """Do one step and everything due after it; True when it was the last.

        Raises:
            NothingLeft: there was no data for the step.
        """
        started = time.perf_counter()
        metrics = self.steps.step(index)
        metrics["seconds"] = time.perf_counter() - started
        done = index + 1
        metrics |= self._course.stepped(metrics)
        self._tell(done, metrics, record)
        is_last, is_best = self._is_over(done), False
        is_evaluated = is_last or _is_due(done, self.settings.eval_every)
        if is_evaluated:
            found, is_best = self._evaluated(done, metrics)
            metrics |= found
            is_last = is_last or self._is_over(done)
        self._last = metrics
        if is_evaluated or _is_due(done, self.settings.log_every):
            metrics |= self.profile.row()
            record.write(done, metrics)
        record.show(done, metrics, self.settings.shown, last_of(self.steps))
        if not is_last and (is_best or _is_due(done, self.settings.checkpoint_every)):
            with self.profile.phases("checkpoint"):
                self._save(done, self._rows_on_disk())
        return is_last

    def _tell(self, done: int, metrics: dict[str, float], record: Record) -> None:
        """Call the observer after a step."""
        try:
            if self._observer is not None:
                self._observer.stepped(done, metrics)
        except BaseException:
            record.log.write(done, metrics)  # the step is done, whatever the observer makes of it
            raise

    def _is_over(self, done: int) -> bool:
        """Whether the run ends after this step: all are done, a rule or the observer of a process ends it; says so."""
        of = f"after step {done} of {self.settings.num_steps}"
        if done == self.settings.num_steps:
            return True
        if self._observer is not None and self.processes.any(self._observer.wants_stop):
            self.processes.say(f"stopped by a callback {of}")
            return True
        if self._course.verdict is not None:
            self.processes.say(f"the run ends {of}: {self._course.verdict}")
            return True
        return False

    def _ended_early(self, done: int, record: Record) -> None:
        """Do what is due after the last step, now that we know that it was the last."""
        if done == 0:
            raise DataError("the prompts ran out before the first step had a full batch")
        self.processes.say(f"nothing left after step {done} of {self.settings.num_steps}")
        if self._last and self._evaluated_at != done:
            found, _ = self._evaluated(done, self._last)
            record.rewrite(done, self._last | found)

    def _evaluated(self, done: int, metrics: dict[str, float]) -> tuple[dict[str, float], bool]:
        """Evaluate after a step; return what it adds to the step's metrics, and whether the step is the best so far."""
        with self.profile.phases("evaluation"):
            found = self.steps.evaluate()
        self._evaluated_at = done
        added, is_best = self._course.evaluated(done, metrics | found)
        if self._observer is not None and found:
            self._observer.evaluated(done, found | added)
        return found | added, is_best

    def _save(self, done: int, rows: int | None) -> None:
        """Save a checkpoint, for which the metrics have so many rows."""
        path = self._keeping.save(done, rows)
        if self._observer is not None:
            self._observer.saved(path)

    def _rows_on_disk(self) -> int | None:
        """Wait until all rows of the metrics are on the disk, and count them: a checkpoint stands for them too."""
        if self._metrics_log is None:
            return None
        self._metrics_log.sync()
        return self._metrics_log.num_rows

    def _stop(self, done: int, stop: StopFlag) -> None:
        self._save(done, self._rows_on_disk())
        cause = "the launcher is gone: stopped" if self.processes.is_orphan else "stopped by a signal"
        stopped = Terminated(f"{cause} after step {done}; run the same command again to go on")
        if stop.requested:  # otherwise the signal reached only another process
            stopped.exit_status = stop.exit_status
        raise stopped


def _is_due(done: int, every: int | None) -> bool:
    return every is not None and done % every == 0
