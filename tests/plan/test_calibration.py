"""Fits of the cost model to times that are known."""

import json
from dataclasses import replace

import pytest

from rlhf.errors import ConfigError
from rlhf.plan.calibration import Measured, fitted, machine
from rlhf.plan.hardware import Efficiency
from rlhf.plan.times import Work

TRUE = Efficiency(training=0.6, inference=0.7, decoding=0.3, reading=1.0, updating=0.5, launch=2e-4, pass_launch=3e-4)
BANDWIDTH = 1e10


def work(size: float, layers: int) -> Work:
    """Return the work of a step of a model with `size` weights."""
    return Work(
        passes=6 * size * 1000,
        pass_blocks=30 * layers,
        update_bytes=30 * size,
        scoring=4 * size * 1000,
        scoring_blocks=10 * layers,
        reading=2 * size * 500,
        decode_steps=64,
        decode_bytes=0,
        decode_flops=2 * size * 16,
        decode_blocks=layers,
    )


SIZES = {"small": (work(5e6, 6), 40e9), "middle": (work(20e6, 12), 60e9), "large": (work(135e6, 30), 90e9)}


def run(size: str) -> Measured:
    """Return what a machine with TRUE takes for a size."""
    counted, rate = SIZES[size]
    device = machine(Measured(seconds={}, rate=rate), TRUE, memory=1e9, bandwidth=BANDWIDTH)
    whole = counted.times(device)
    updates = replace(counted, passes=0, pass_blocks=0).times(device).training
    seconds = {"generation": whole.generation, "reward": 0.0, "reference": whole.scoring, "forward": 0.0}
    return Measured(seconds={**seconds, "backward": whole.training - updates, "optimizer": updates}, rate=rate)


def test_the_shares_and_waits_of_a_machine_are_found_from_two_sizes():
    found = fitted([(SIZES[size][0], run(size)) for size in ("small", "middle")], BANDWIDTH)
    for name in ("training", "inference", "decoding", "updating", "launch", "pass_launch"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name)), name


def test_a_third_size_is_predicted_from_two():
    efficiency = fitted([(SIZES[size][0], run(size)) for size in ("small", "middle")], BANDWIDTH)
    large = run("large")
    predicted = SIZES["large"][0].times(machine(large, efficiency, memory=1e9, bandwidth=BANDWIDTH))
    assert predicted.total == pytest.approx(large.times.total)


def test_a_wait_below_nothing_is_none():
    slower = [replace(run("small"), seconds=dict.fromkeys(run("small").seconds, 1.0))]
    slower.append(replace(run("large"), seconds=dict.fromkeys(run("large").seconds, 1000.0)))
    pairs = [(SIZES["small"][0], slower[0]), (SIZES["large"][0], slower[1])]
    found = fitted(pairs, BANDWIDTH)
    assert (found.launch, found.pass_launch) == (0.0, 0.0) and 0 < found.training < 1


def test_a_profiled_run_is_read_without_its_first_step(tmp_path):
    (tmp_path / "profile.json").write_text('{"matrix_flops_per_second": 5e9}')
    rows = [{"step": step, "time/forward": second, "time/generation": 2.0} for step, second in enumerate((9, 1, 3, 2))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = Measured.of(tmp_path)
    assert (found.rate, found.seconds["forward"], found.times.generation) == (5e9, 2, 2.0)


def test_a_directory_without_a_profile_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected the output of `rlhf ppo --profile` over two steps"):
        Measured.of(tmp_path)
