"""Tests of rlhf.training.ending.ceiling, alone and in the loop."""

import pytest

from rlhf.training.ending.ceiling import Ceiling, CeilingRule
from rlhf.training.ending.course import Rules

KL = (0.0, 9.0, 0.0, 3.0, 4.0, 5.0, 6.0, 7.0)
RULE = CeilingRule(metric="kl", limit=4.0, window=3, key="kl_control.stop_at_kl")


def test_the_mean_over_the_window_is_compared_so_one_outlier_ends_nothing():
    ceiling = Ceiling(RULE)
    means, verdicts = [], []
    for value in KL[:6]:
        means.append(ceiling.add(value))
        verdicts.append(ceiling.verdict is not None)
    assert means == [0.0, 4.5, 3.0, 4.0, 7 / 3, 4.0]
    assert verdicts == [False, False, False, True, False, True], "the limit itself ends it; a short window does not"


def test_the_run_ends_well_at_the_first_step_whose_mean_reaches_the_limit(tmp_path, planned, on_disk, capsys):
    slow = CeilingRule(metric="kl", limit=4.0, window=4, key="kl_control.stop_at_kl")
    steps = planned.run(tmp_path / "run", planned.Planned(kl=KL), Rules(ceiling=slow), eval_every=None)
    assert steps.started == [0, 1, 2, 3, 4] and steps.number == planned.numbers(5, [1.0] * 8)
    assert [row["kl_window"] for row in on_disk.timeless(tmp_path / "run")] == [0.0, 4.5, 3.0, 3.0, 4.0]
    assert (
        "the run ends after step 5 of 8: kl was 4 over the last 4 steps, kl_control.stop_at_kl is 4"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("crash_at", [1, 3, 4])
def test_a_resumed_run_ends_at_the_same_step(tmp_path, planned, on_disk, crash_at):
    slow = Rules(ceiling=CeilingRule(metric="kl", limit=4.0, window=4, key="kl_control.stop_at_kl"))
    planned.run(tmp_path / "straight", planned.Planned(kl=KL), slow, checkpoint_every=1)
    with pytest.raises(RuntimeError):
        planned.run(tmp_path / "run", planned.Planned(kl=KL, crash_at=crash_at), slow, checkpoint_every=1)
    resumed = planned.run(tmp_path / "run", planned.Planned(kl=KL), slow, checkpoint_every=1)
    assert resumed.started == list(range(crash_at, 5))
    assert on_disk.timeless(tmp_path / "run") == on_disk.timeless(tmp_path / "straight")
