"""Tests of rlhf.training.ending.rollback in the loop: one bad step, a step that is always bad, a kill in between."""

import pytest

from rlhf.errors import CheckpointError, GuardStop
from rlhf.training.ending.best import BestRule
from rlhf.training.ending.course import Rules
from rlhf.training.ending.rollback import RollbackRule

TWICE = Rules(rollback=RollbackRule(times=2, lr_factor=0.5))


def fast(index, tries, scale):
    """Step 5 diverges at the full learning rate."""
    return index == 5 and scale == 1.0


def always(index, tries, scale):
    return index == 5


def test_after_one_bad_step_the_run_goes_on_from_its_last_good_checkpoint_more_slowly(
    tmp_path, planned, on_disk, capsys
):
    steps = planned.run(tmp_path / "run", planned.Planned(bad=fast), TWICE)
    assert steps.started == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7]
    assert steps.number == planned.numbers(8, [1.0] * 3 + [0.5] * 5)
    rows = on_disk.timeless(tmp_path / "run")
    assert [row["step"] for row in rows] == list(range(1, 9)), "no step has two rows"
    assert [row["rollback/count"] for row in rows] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert [row["lr"] for row in rows] == [1.0] * 3 + [0.5] * 5
    told = capsys.readouterr().out
    assert (
        "guard: not finite: logprobs" in told and "step-000003 with learning rates times 0.5 (rollback 1 of 2)" in told
    )


def test_a_step_that_is_always_bad_ends_the_run_after_the_last_rollback(tmp_path, planned):
    steps = planned.Planned(bad=always)
    with pytest.raises(
        GuardStop, match=r"no step was taken; the run went back 2 times; the last good .*step-000003"
    ) as e:
        planned.run(tmp_path / "run", steps, TWICE)
    assert e.value.exit_status == 6 and steps.scale == 0.25
    assert steps.started == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5]


def test_before_the_first_checkpoint_the_run_goes_back_to_its_start(tmp_path, planned):
    steps = planned.run(
        tmp_path / "run", planned.Planned(bad=lambda index, tries, scale: index == 1 and scale == 1.0), TWICE
    )
    assert steps.started[:4] == [0, 1, 0, 1] and steps.number == planned.numbers(8, [0.5] * 8)


def test_without_a_rule_the_first_guard_ends_the_run(tmp_path, planned):
    steps = planned.Planned(bad=fast)
    with pytest.raises(GuardStop, match=r"no step was taken; the last good checkpoint is .*step-000003"):
        planned.run(tmp_path / "run", steps, Rules())
    assert steps.started == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("crash_at", [3, 4, 6, 7])
def test_a_run_that_is_killed_after_a_rollback_goes_on_with_its_learning_rate_and_its_count(
    tmp_path, planned, on_disk, crash_at
):
    straight = planned.run(tmp_path / "straight", planned.Planned(bad=fast), TWICE)

    class Killed(planned.Planned):
        def step(self, index):
            if index == crash_at and self.scale < 1.0:
                raise RuntimeError("power cut")
            return super().step(index)

    with pytest.raises(RuntimeError):
        planned.run(tmp_path / "run", Killed(bad=fast), TWICE)
    resumed = planned.run(tmp_path / "run", planned.Planned(), TWICE)  # the guard need not come again
    assert resumed.number == straight.number and resumed.scale == 0.5
    assert on_disk.timeless(tmp_path / "run") == on_disk.timeless(tmp_path / "straight")


def test_the_best_step_goes_back_with_the_run(tmp_path, planned, on_disk):
    best = BestRule(metric="eval/score", greater_is_better=True, load_at_end=True)
    scores = (1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    rules = Rules(best=best, rollback=TWICE.rollback)
    steps = planned.run(tmp_path / "run", planned.Planned(scores, bad=fast), rules)
    assert steps.number == planned.numbers(2, [1.0] * 3 + [0.5] * 5)
    assert {row["best/step"] for row in on_disk.timeless(tmp_path / "run")[1:]} == {2}


def test_a_checkpoint_without_the_count_is_refused(tmp_path, planned):
    with pytest.raises(RuntimeError):
        planned.run(tmp_path / "run", planned.Planned(crash_at=5), Rules())
    with pytest.raises(CheckpointError, match="course: does not fit this run: lacks lr_factor, num_rollbacks"):
        planned.run(tmp_path / "run", planned.Planned(), TWICE)
