import pytest

import calibration
import small_runs
from rlhf.plan.calibration import Measured, machine
from rlhf.plan.hardware import Efficiency


def test_a_machine_that_is_as_the_model_says_is_predicted_exactly(tmp_path):
    chosen = calibration.runs(quick=True)
    small_runs.prepare(tmp_path, set(chosen))
    counts = {size: calibration.counted_run(run, tmp_path).work for size, run in chosen.items()}
    true = Efficiency(training=0.5, inference=0.5, decoding=0.5, reading=1.0, launch=1e-3, pass_launch=1e-3)
    found = {}
    for size, work in counts.items():
        times = work.times(machine(Measured(seconds={}, rate=1e9), true, memory=0.0, bandwidth=1e12))
        seconds = {"generation": times.generation, "reward": 0.0, "reference": times.scoring, "forward": 0.0}
        updates = work.update_bytes / 1e12
        seconds |= {"backward": times.training - updates, "optimizer": updates}
        found[size] = Measured(seconds=seconds, rate=1e9)
    text, worst = calibration.table(counts, found, 1e12)
    assert worst < 1e-6 and text.count("| total |") == len(calibration.HELD_OUT.keys() & counts.keys())


def test_every_size_is_predicted_from_two_others():
    for size, (one, other) in calibration.HELD_OUT.items():
        assert len({size, one, other}) == 3
    assert all(size in small_runs.SIZES for names in (calibration.FULL, calibration.QUICK) for size in names)


def test_the_bandwidth_of_a_copy_is_some_gigabytes_a_second(monkeypatch):
    monkeypatch.setattr(calibration, "COPIED", 2**20)
    assert 1e7 < calibration.bandwidth() < 1e13


@pytest.mark.slow
def test_a_profiled_run_is_measured_on_one_process(tmp_path):
    run = small_runs.Run(size="tiny", response=4, batch=4)
    small_runs.prepare(tmp_path, {"tiny"})
    found = Measured.of(small_runs.do(run, tmp_path))
    assert found.rate > 0 and found.times.generation > 0 and found.times.training > 0
