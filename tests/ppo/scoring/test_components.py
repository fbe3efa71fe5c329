"""Tests of rlhf.ppo.scoring.components: what one reward adds to the score, and what is logged about it."""

import math
from typing import Any

import pytest

from rlhf.ppo.scoring.components import Part, component_metrics, gate_is_open, reward_summary
from rlhf.rewards.checks import Problem
from rlhf.rewards.component import Answer, Component, Gate, Options
from rlhf.rewards.protocol import Score
from rlhf.training.processes import Processes

ALONE = Processes()
NAN_PROBLEM, ERROR_PROBLEM = Problem("it is nan", is_number=True), Problem("it failed", is_number=False)


class Silent:
    def score(self, episodes: Any) -> list[float]:
        raise AssertionError

    def close(self) -> None: ...


def weighted(
    scores: list[Score], weight: float = 1.0, kept: Any = None, gate: Any = None, **options: Any
) -> list[Score]:
    neutral = frozenset(options.pop("neutral", ()))
    part = Part(Component(Silent(), weight, "r", Options(**options)))
    return part.weighted(Answer(scores=scores, neutral=neutral), kept or [True] * len(scores), gate, ALONE)


def test_a_score_is_multiplied_by_its_weight_and_nothing_else() -> None:
    assert weighted([0.1, -3.0, None, [1.0, 2.0]], 0.5) == [0.05, -1.5, None, [0.5, 1.0]]


def test_scores_are_normalised_then_clipped_then_weighed() -> None:
    # mean 3, deviation 2: normalised by the batch -1, -1, 1, 1; by all so far 0.5, 0.5, 2.5, 2.5
    assert weighted([1.0, 1.0, 5.0, 5.0], 10.0, normalise="batch", clip=0.5) == [-5.0, -5.0, 5.0, 5.0]
    assert weighted([1.0, 1.0, 5.0, 5.0], 10.0, normalise="running", clip=1.0) == [5.0, 5.0, 10.0, 10.0]
    assert weighted([[4.0, -9.0], None], clip=5.0) == [[4.0, -5.0], None]


def test_single_tokens_are_divided_by_the_deviation_of_whole_responses() -> None:
    # sums 4 and 8: mean 6, deviation 2
    assert weighted([[1.0, 3.0], [8.0]], normalise="running") == [[0.5, 1.5], [4.0]]


def test_running_normalisation_remembers_earlier_batches() -> None:
    part = Part(Component(Silent(), 1.0, "r", Options(normalise="running")))
    for scores, expected in ([1.0, 3.0], [1.0, 3.0]), ([5.0, 7.0], [5 / math.sqrt(5), 7 / math.sqrt(5)]):
        assert part.weighted(Answer(scores=list(scores)), [True, True], None, ALONE) == pytest.approx(expected)


def test_what_is_absent_or_dropped_enters_no_statistic() -> None:
    assert weighted([1.0, 3.0, None, 900.0], kept=[True, True, True, False], normalise="batch")[:3] == [-1.0, 1.0, None]
    assert weighted([None, None], normalise="batch") == [None, None]
    assert weighted([None, 7.0], kept=[True, False], normalise="running")[0] is None


def test_neutral_is_the_mean_of_what_the_reward_gave_to_the_others() -> None:
    assert weighted([1.0, None, 4.0, None], 2.0, neutral=[1], on_nan="neutral") == [2.0, 5.0, 8.0, None]
    assert weighted([1.0, None, 99.0], neutral=[1], kept=[True, True, False], on_error="neutral")[1] == 1.0
    # after clipping: 0, 0, 3, 3, 3, 3
    assert weighted([0.0, 0.0, None, 4.0, 4.0, 4.0, 4.0], neutral=[2], on_nan="neutral", clip=3.0)[2] == 2.0
    assert weighted([None, None], neutral=[0, 1], on_error="neutral") == [0.0, 0.0]


def test_a_gate_lets_a_reward_count_for_some_episodes_only() -> None:
    assert weighted([1.0, 2.0, [3.0]], gate=[True, False, False]) == [1.0, None, None]
    other = Answer(scores=[0.5, 0.6, None, [0.3, 0.3]])
    assert gate_is_open(Gate("other", 0.5), {"other": other}) == [False, True, False, True]


def told(*answers: Answer, kept: list[bool] | None = None, lengths: list[int] | None = None) -> Any:
    num = len(answers[0].scores)
    return reward_summary(
        [f"r{n}" for n in range(len(answers))], answers, kept or [True] * num, lengths or list(range(1, num + 1))
    )


def test_each_reward_is_logged_with_mean_deviation_and_correlations() -> None:
    # By hand: r0 = 1 2 3 4 goes with the length; r1 = 4 3 2 1 against it; r2 = 1 0 0 1 with neither.
    answers = [
        Answer(scores=list(scores)) for scores in ([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [1.0, 0.0, 0.0, 1.0])
    ]
    assert component_metrics([told(*answers)]) == pytest.approx({
        "reward/r0/mean": 2.5, "reward/r0/std": math.sqrt(1.25), "reward/r0/length_correlation": 1.0,
        "reward/r1/mean": 2.5, "reward/r1/std": math.sqrt(1.25), "reward/r1/length_correlation": -1.0,
        "reward/r2/mean": 0.5, "reward/r2/std": 0.5, "reward/r2/length_correlation": 0.0,
        "reward/r0/correlation/r1": -1.0, "reward/r0/correlation/r2": 0.0, "reward/r1/correlation/r2": 0.0,
    })  # fmt: skip


def test_two_processes_log_what_one_would() -> None:
    one = component_metrics([told(Answer(scores=[1.0, 5.0, [2.0, 0.5]]), Answer(scores=[0.0, 1.0, 7.0]))])
    halves = [
        told(Answer(scores=[1.0]), Answer(scores=[0.0]), lengths=[1]),
        told(Answer(scores=[5.0, [2.0, 0.5]]), Answer(scores=[1.0, 7.0]), lengths=[2, 3]),
    ]
    assert component_metrics(halves) == pytest.approx(one) and len(one) == 7


def test_a_constant_reward_has_no_correlation() -> None:
    # Three times 0.1 has a deviation that is a rounding error, not 0.
    metrics = component_metrics([told(Answer(scores=[0.1, 0.1, 0.1]), Answer(scores=[1.0, 2.0, 3.0]))])
    assert "reward/r0/length_correlation" not in metrics and "reward/r0/correlation/r1" not in metrics
    assert metrics["reward/r1/length_correlation"] == pytest.approx(1.0)


def test_what_went_wrong_is_counted_and_what_is_absent_too() -> None:
    answer = Answer(
        scores=[1.0, None, None, None, 3.0], problems={1: NAN_PROBLEM, 2: ERROR_PROBLEM}, dropped=frozenset([2])
    )
    metrics = component_metrics([told(answer, kept=[True, True, False, True, True])] * 2)
    counts = {"failed": 2.0, "not_finite": 2.0, "absent": 4.0}
    assert {name: metrics[f"reward/r0/{name}"] for name in counts} == counts
    assert metrics["reward/dropped_episodes"] == 2.0
    assert (metrics["reward/r0/mean"], metrics["reward/r0/std"]) == (2.0, 1.0)


def test_a_reward_that_says_nothing_at_all_has_no_mean() -> None:
    assert component_metrics([told(Answer(scores=[None, None]))]) == {"reward/r0/absent": 2.0}


def test_observations_are_averaged_over_all_processes() -> None:
    one, other = Answer(scores=[1.0], observations={"spread": [1.0, 2.0]}), Answer(scores=[1.0])
    both = component_metrics([told(one), told(other), told(Answer(scores=[1.0], observations={"spread": [6.0]}))])
    assert both["reward/r0/spread"] == 3.0


def test_a_reward_named_length_is_not_taken_for_the_length() -> None:
    answers = [Answer(scores=[1.0, 2.0, 3.0]), Answer(scores=[3.0, 2.0, 1.0])]
    metrics = component_metrics([reward_summary(["style", "length"], answers, [True] * 3, [1, 2, 3])])
    assert metrics["reward/style/length_correlation"] == pytest.approx(1.0)
    assert metrics["reward/style/correlation/length"] == pytest.approx(-1.0)
