import os
import signal
from pathlib import Path

import pytest
import torch

from rlhf.errors import CheckpointError, DataError, Terminated
from rlhf.training.keeping import Keeping
from rlhf.training.loop import Loop
from rlhf.training.processes import Processes
from rlhf.training.protocol import LoopSettings, NothingLeft
from rlhf.training.storage.run_directory import RunDirectory
from rlhf.training.telemetry.phases import Phases
from rlhf.training.telemetry.profile import NO_PROFILE, Profile


class Counting:
    """Steps whose state is a number."""

    def __init__(self, on_step=lambda index: None):
        self.number = 0.0
        self.on_step = on_step
        self.num_evaluated = 0

    def step(self, index):
        self.on_step(index)
        self.number = self.number * 1.5 + index
        return {"number": self.number}

    def evaluate(self):
        self.num_evaluated += 1
        return {"eval/number": -self.number}

    def saved(self):
        return {"state": {"number": torch.tensor(self.number, dtype=torch.float64)}}, {"note": "saved"}

    def restore(self, checkpoint):
        assert checkpoint.state == {"note": "saved"}
        self.number = float(checkpoint.tensors("state")["number"])


def run(path, steps, *, fingerprint=None, profile=NO_PROFILE, **changes):
    values = {"num_steps": 10, "log_every": 1, "checkpoint_every": 3, "checkpoints_kept": 2, "eval_every": None}
    settings = LoopSettings(**(values | changes), description="test", shown=("number",))
    with RunDirectory(path, fingerprint="x") as directory:
        loop = Loop(steps, settings, directory, Processes(), config={}, fingerprint=fingerprint or {}, profile=profile)
        loop.run(loop.resume())


def stop_at(step):
    def on_step(index):
        if index == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_step


def fail_at(step):
    def on_step(index):
        if index == step:
            raise RuntimeError("power cut")

    return on_step


@pytest.fixture
def whole(tmp_path, on_disk):
    run(tmp_path / "whole", Counting())
    return on_disk.timeless(tmp_path / "whole")


def test_every_step_has_a_row_and_the_last_is_evaluated(whole):
    assert [row["step"] for row in whole] == list(range(1, 11))
    assert [row["step"] for row in whole if "eval/number" in row] == [10]


def test_an_evaluation_is_written_also_at_a_step_that_is_not_logged(tmp_path, on_disk):
    run(tmp_path / "run", Counting(), log_every=4, eval_every=3)
    assert [row["step"] for row in on_disk.timeless(tmp_path / "run")] == [3, 4, 6, 8, 9, 10]
    assert [row["step"] for row in on_disk.timeless(tmp_path / "run") if "eval/number" in row] == [3, 6, 9, 10]


@pytest.mark.parametrize("step", [0, 4, 8])
def test_a_signal_saves_at_the_step_boundary_and_the_next_run_goes_on_as_if_nothing_happened(
    tmp_path, whole, step, on_disk
):
    path = tmp_path / "run"
    with pytest.raises(Terminated, match=f"stopped by a signal after step {step + 1}") as stop:
        run(path, Counting(stop_at(step)))
    assert stop.value.exit_status == 143
    assert (path / "checkpoints" / f"step-{step + 1:06d}").is_dir()
    started = []
    run(path, Counting(started.append))
    assert started[0] == step + 1
    assert on_disk.timeless(path) == whole


def test_a_signal_during_the_last_step_lets_the_run_end(tmp_path, whole, on_disk):
    run(tmp_path / "run", Counting(stop_at(9)))
    assert on_disk.timeless(tmp_path / "run") == whole


def test_a_crash_goes_on_from_the_last_checkpoint_and_rows_are_not_doubled(tmp_path, whole, on_disk):
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "run", Counting(fail_at(8)))
    assert [row["step"] for row in on_disk.timeless(tmp_path / "run")] == list(range(1, 9))
    started = []
    run(tmp_path / "run", Counting(started.append))
    assert started == [6, 7, 8, 9]
    assert on_disk.timeless(tmp_path / "run") == whole


def test_a_changed_setting_is_refused_by_name_and_nothing_is_touched(tmp_path, on_disk):
    path = tmp_path / "run"
    with pytest.raises(RuntimeError):
        run(path, Counting(fail_at(4)), fingerprint={"optimizer.learning_rate": 0.1})
    before = on_disk.timeless(path)
    with pytest.raises(CheckpointError, match=r"differ: optimizer.learning_rate \(saved 0.1, now 0.2\); restore"):
        run(path, Counting(), fingerprint={"optimizer.learning_rate": 0.2})
    assert on_disk.timeless(path) == before


def test_a_signal_that_reached_another_process_only_is_no_success(tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "any", lambda self, condition: True)
    monkeypatch.setattr(Keeping, "save", lambda self, done, rows: Path())
    with pytest.raises(Terminated) as stop:
        run(tmp_path / "run", Counting())
    assert stop.value.exit_status == 143


def test_a_failed_save_of_another_process_is_a_checkpoint_error_here(tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "any", lambda self, condition: True)
    with pytest.raises(CheckpointError, match="another process could not save") as error:
        run(tmp_path / "run", Counting(), checkpoint_every=1)
    assert error.value.exit_status == 4


class Slow(Counting):
    """Steps of 2 s each, half of it forward, and evaluations of 8 s, on a clock of their own."""

    def __init__(self, profile):
        super().__init__()
        self.now = 0.0
        self.phases = Phases(clock=lambda: self.now)
        profile.phases = self.phases
        self.now += 32.0  # loading and resuming are not the loop's

    def step(self, index):
        self.now += 1.0
        with self.phases("forward"):
            self.now += 1.0
        return super().step(index)

    def evaluate(self):
        self.now += 8.0
        return super().evaluate()

    def saved(self):
        self.now += 16.0
        return super().saved()


def test_a_profile_shares_out_the_whole_time_of_the_loop_and_counts_steps_that_are_not_logged(tmp_path, on_disk):
    profile = Profile(Processes())
    run(tmp_path / "run", Slow(profile), profile=profile, num_steps=4, log_every=2, checkpoint_every=3)
    first, last = on_disk.timeless(tmp_path / "run")
    times = [{name: value for name, value in row.items() if name.startswith("time/")} for row in (first, last)]
    assert times[0] == {"time/forward": 2.0, "time/other": 2.0}
    assert times[1] == {"time/forward": 2.0, "time/checkpoint": 16.0, "time/evaluation": 8.0, "time/other": 2.0}
    assert {"profile/tokens_per_second", "profile/flop_utilisation", "profile/peak_memory_gib"} <= last.keys()


class Listener:
    def __init__(self, stop_at=None):
        self.heard = []
        self.wants_stop = False
        self._stop_at = stop_at

    def stepped(self, step, metrics):
        self.heard.append(("step", step, metrics["number"]))
        self.wants_stop = step == self._stop_at

    def evaluated(self, step, metrics):
        self.heard.append(("evaluated", step, metrics["eval/number"]))

    def saved(self, path):
        assert (path / "manifest.json").is_file()
        self.heard.append(("saved", path.name))


def test_an_observer_hears_of_steps_evaluations_and_checkpoints_in_order(tmp_path):
    settings = {"num_steps": 2, "log_every": 1, "checkpoint_every": 1, "checkpoints_kept": 2, "eval_every": None}
    listener = Listener()
    with RunDirectory(tmp_path / "run", fingerprint="x") as directory:
        every = LoopSettings(**settings, description="test", shown=())
        Loop(Counting(), every, directory, Processes(), config={}, fingerprint={}).run(0, listener)
    assert listener.heard == [("step", 1, 0.0), ("saved", "step-000001"), ("step", 2, 1.0), ("evaluated", 2, -1.0)]


def listened(path, listener, **changes):
    settings = {"num_steps": 4, "log_every": 2, "checkpoint_every": 3, "checkpoints_kept": 2, "eval_every": None}
    with RunDirectory(path, fingerprint="x") as directory:
        every = LoopSettings(**(settings | changes), description="test", shown=())
        Loop(Counting(), every, directory, Processes(), config={}, fingerprint={}).run(0, listener)


def test_an_observer_that_wants_to_stop_ends_the_run_as_its_last_step_does(tmp_path, on_disk, capsys):
    listener = Listener(stop_at=3)
    listened(tmp_path / "run", listener)
    assert [each[:2] for each in listener.heard] == [("step", 1), ("step", 2), ("step", 3), ("evaluated", 3)]
    assert [row["step"] for row in on_disk.timeless(tmp_path / "run")] == [2, 3]
    assert "stopped by a callback after step 3 of 4" in capsys.readouterr().out


def test_the_row_of_a_step_is_kept_when_its_observer_raises(tmp_path, on_disk):
    class Raising(Listener):
        def stepped(self, step, metrics):
            if step == 3:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        listened(tmp_path / "run", Raising())
    assert [row["step"] for row in on_disk.timeless(tmp_path / "run")] == [2, 3]


def test_a_stage_with_nothing_left_ends_before_its_last_step(tmp_path, on_disk):
    def on_step(index):
        if index == 4:
            raise NothingLeft

    run(tmp_path / "run", Counting(on_step))
    found = on_disk.timeless(tmp_path / "run")
    assert [row["step"] for row in found] == [1, 2, 3, 4] and found[-1].keys() > found[-2].keys()  # it is evaluated too


def test_a_stage_with_nothing_for_its_first_step_is_refused(tmp_path):
    def on_step(index):
        raise NothingLeft

    with pytest.raises(DataError, match="the prompts ran out before the first step had a full batch"):
        run(tmp_path / "run", Counting(on_step))
