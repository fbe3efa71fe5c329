"""Tests of rlhf.training.ending.best, alone and in the loop."""

import math
import shutil

import pytest

from rlhf.errors import ConfigError
from rlhf.training.ending.best import Best, BestRule
from rlhf.training.ending.course import Rules

SCORES = (1.0, 3.0, 2.0, 3.0, 2.5, 2.9, 2.8, 2.0)


def rule(**changes):
    given = {"metric": "eval/score", "greater_is_better": True, "load_at_end": True} | changes
    return BestRule(**given)


def rules(**changes):
    return Rules(best=rule(**changes))


def judged(values, **changes):
    best = Best(rule(**changes))
    return best, [best.judge(step, value) for step, value in enumerate(values, start=1)]


def test_only_a_better_value_is_best_and_an_equal_one_is_not():
    best, found = judged([2.0, 1.0, 2.0, 2.5, math.nan])
    assert found == [True, False, False, True, False] and (best.step, best.value) == (4, 2.5)
    best, found = judged([2.0, 1.0, 1.0], greater_is_better=False)
    assert found == [True, True, False] and best.step == 2


def test_a_first_value_that_is_not_a_number_is_no_best():
    best, found = judged([math.nan, -5.0])
    assert found == [False, True] and best.step == 2


@pytest.mark.parametrize(
    ("values", "min_delta", "num_worse"),
    [([1.0, 1.0, 1.0], 0.0, 2), ([1.0, 1.5, 1.6], 0.2, 1), ([1.0, 1.1, 1.2], 0.2, 2), ([1.0, 0.0, 1.3], 0.2, 0)],
)
def test_patience_counts_evaluations_that_are_not_better_by_more_than_min_delta(values, min_delta, num_worse):
    best, _ = judged(values, min_delta=min_delta, patience=3)
    assert best.num_worse == num_worse and best.verdict is None


def test_the_result_has_the_weights_of_the_best_step_and_its_checkpoint_outlives_newer_ones(
    tmp_path, planned, on_disk, capsys
):
    steps = planned.run(tmp_path / "run", planned.Planned(SCORES), rules())
    assert steps.number == planned.numbers(2, [1.0] * 8)
    assert planned.checkpoints(tmp_path / "run") == [2, 6]
    rows = on_disk.timeless(tmp_path / "run")
    assert [row["best/step"] for row in rows] == [1, 2, 2, 2, 2, 2, 2, 2] and rows[-1]["best/value"] == 3.0
    assert "best: step 2, eval/score 3; the result has the weights of step 2" in capsys.readouterr().out


def test_without_load_at_end_the_result_is_the_last_step(tmp_path, planned, capsys):
    steps = planned.run(tmp_path / "run", planned.Planned(SCORES), rules(load_at_end=False))
    assert steps.number == planned.numbers(8, [1.0] * 8)
    assert planned.checkpoints(tmp_path / "run") == [2, 6]
    assert "best: step 2, eval/score 3; the result has the weights of step 8" in capsys.readouterr().out


def test_the_run_ends_when_patience_does(tmp_path, planned, on_disk, capsys):
    steps = planned.run(tmp_path / "run", planned.Planned(SCORES), rules(patience=3))
    assert steps.started == [0, 1, 2, 3, 4] and len(on_disk.timeless(tmp_path / "run")) == 5
    assert (
        "the run ends after step 5 of 8: early_stopping: eval/score was not better than 3 of step 2 in 3 evaluations"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("crash_at", [1, 2, 3, 4])
def test_a_resumed_run_chooses_and_ends_as_the_straight_one(tmp_path, planned, on_disk, crash_at):
    straight = planned.run(tmp_path / "straight", planned.Planned(SCORES), rules(patience=3), checkpoint_every=1)
    stopped = planned.Planned(SCORES, crash_at=crash_at)
    with pytest.raises(RuntimeError):
        planned.run(tmp_path / "run", stopped, rules(patience=3), checkpoint_every=1)
    resumed = planned.run(tmp_path / "run", planned.Planned(SCORES), rules(patience=3), checkpoint_every=1)
    assert resumed.started[0] == crash_at and resumed.number == straight.number
    assert on_disk.timeless(tmp_path / "run") == on_disk.timeless(tmp_path / "straight")
    saved = [on_disk.contents(tmp_path / name / "checkpoints") for name in ("run", "straight")]
    assert saved[0] == saved[1]


def test_a_best_checkpoint_that_is_gone_is_said_and_the_next_one_is_best(tmp_path, planned, capsys):
    with pytest.raises(RuntimeError):
        planned.run(tmp_path / "run", planned.Planned(SCORES, crash_at=4), rules())
    shutil.rmtree(tmp_path / "run/checkpoints/step-000002")
    steps = planned.run(tmp_path / "run", planned.Planned(SCORES), rules())
    told = capsys.readouterr().out
    assert "step-000002, the best so far, is damaged or gone" in told and "best: step 4, eval/score 3" in told
    assert steps.number == planned.numbers(4, [1.0] * 8)


def test_a_metric_that_no_step_has_is_refused_with_those_it_has(tmp_path, planned):
    with pytest.raises(ConfigError, match=r"best.metric: there is no 'accuracy'; an evaluated step has eval/score, kl"):
        planned.run(tmp_path / "run", planned.Planned(SCORES), rules(metric="accuracy"))
