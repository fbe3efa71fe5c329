"""Tests of rlhf.ppo.scoring.scorer."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from rlhf.config.ppo import ScoreSection
from rlhf.errors import RewardError
from rlhf.ppo.scoring.scorer import RunningScale, Scorer
from rlhf.rewards.component import Component, Gate, Options
from rlhf.rewards.protocol import Episode
from rlhf.training.processes import Processes


class Fixed:
    def __init__(self, *scores: float) -> None:
        self.scores, self.is_closed = list(scores), False

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        return self.scores

    def close(self) -> None:
        self.is_closed = True


class Failing(Fixed):
    def score(self, episodes: Sequence[Episode]) -> list[float]:
        raise RewardError("no idea")


def episodes(num: int) -> list[Episode]:
    return [Episode(prompt="p", completion="c", columns={}, prompt_ids=(1,), response_ids=(2,))] * num


def scorer(*rewards: tuple[Fixed, float] | Component, **settings: object) -> Scorer:
    return Scorer(rewards, ScoreSection.model_validate(settings), Processes())


def test_the_raw_score_is_the_weighted_sum() -> None:
    both = scorer((Fixed(1.0, 2.0), 0.5), (Fixed(10.0, -1.0), 2.0))
    assert both.score(episodes(2)).raw == [20.5, -1.0]  # 0.5 * 1 + 2 * 10; 0.5 * 2 - 2 * 1


def test_a_failing_reward_raises_its_own_error() -> None:
    with pytest.raises(RewardError, match="no idea"):
        scorer((Fixed(1.0), 1.0), (Failing(), 1.0)).score(episodes(1))


def test_by_default_a_score_stays_what_it_is() -> None:
    assert scorer().shaped([3.5, -7.0], [True, False]) == [3.5, -7.0]


def test_the_penalty_falls_on_responses_without_an_end_after_clipping() -> None:
    clipped = scorer(clip=2.0, missing_eos_penalty=1.0)
    assert clipped.shaped([5.0, -5.0, 0.5, 5.0], [True, True, False, False]) == [2.0, -2.0, -0.5, 1.0]


def test_running_normalisation_divides_by_the_deviation_of_all_scores_so_far() -> None:
    running = scorer(normalise="running")
    assert running.shaped([1.0, 3.0], [True, True]) == [1.0, 3.0]  # mean 2, deviation 1
    # 1, 3, 5, 7: mean 4, variance (9 + 1 + 1 + 9) / 4 = 5
    assert running.shaped([5.0, 7.0], [True, True]) == pytest.approx([5 / math.sqrt(5), 7 / math.sqrt(5)])


def test_the_running_scale_agrees_with_all_scores_at_once_and_survives_saving() -> None:
    scores = [math.sin(i) * 10 + 1e6 for i in range(30)]
    scale = RunningScale()
    for start in (0, 7, 20):
        again = RunningScale()
        again.load(scale.state())
        again.update(scores[start : {0: 7, 7: 20, 20: 30}[start]], Processes())
        scale = again
    mean = sum(scores) / 30
    assert scale.mean == pytest.approx(mean)
    scale.mean = 0.0  # only its size was compared above
    assert scale.std == pytest.approx(math.sqrt(sum((score - mean) ** 2 for score in scores) / 30))


@pytest.mark.parametrize("score", [0.1, 0.0, -1e6])
def test_equal_scores_are_divided_by_one(score: float) -> None:
    # Three times 0.1 sums to 0.30000000000000004: the deviation is a rounding error, not 0.
    assert scorer(normalise="running").shaped([score] * 3, [True] * 3) == [score] * 3


def test_closing_closes_every_reward() -> None:
    rewards = [Fixed(), Fixed()]
    scorer(*((reward, 1.0) for reward in rewards)).close()
    assert all(reward.is_closed for reward in rewards)


class Raising(Fixed):
    def score(self, episodes: Sequence[Episode]) -> list[float]:
        raise ZeroDivisionError("by zero")


NAN = math.nan


def component(*scores: Any, name: str = "r", weight: float = 1.0, **options: Any) -> Component:
    return Component(Fixed(*scores), weight, name, Options(**options))


def test_a_dropped_episode_has_no_score_and_leaves_every_rewards_statistics() -> None:
    both = scorer(
        component(1.0, NAN, 3.0, name="a", on_nan="drop_episode"), component(5.0, 6.0, 9.0, name="b", weight=2.0)
    )
    scored = both.score(episodes(3))
    assert (scored.kept, scored.scores) == ([True, False, True], [11.0, 0.0, 21.0])
    assert scored.metrics["reward/b/mean"] == 7.0 and scored.metrics["reward/dropped_episodes"] == 1.0
    assert both.shaped(scored.scores, [True] * 3, scored.kept) == [11.0, 0.0, 21.0]


def test_a_dropped_episode_enters_neither_the_running_scale_nor_the_penalty() -> None:
    running = scorer(normalise="running", missing_eos_penalty=1.0)
    # 1 and 3 have deviation 1
    assert running.shaped([1.0, 0.0, 3.0], [True, False, False], [True, False, True]) == [1.0, 0.0, 2.0]
    assert running.running.count == 2


def test_when_every_episode_is_dropped_the_run_stops() -> None:
    with pytest.raises(RewardError, match=r"every episode of the step was dropped; .*score 0 is nan"):
        scorer(component(NAN, math.inf, on_nan="drop_episode")).score(episodes(2))


def test_a_neutral_episode_gets_the_mean_and_stays() -> None:
    scored = scorer(component(1.0, NAN, 3.0, on_nan="neutral"), component(10.0, 20.0, 30.0)).score(episodes(3))
    assert (scored.kept, scored.scores) == ([True] * 3, [11.0, 22.0, 33.0])
    failed = scorer(Component(Raising(), 1.0, "x", Options(on_error="neutral")), component(10.0, 20.0)).score(
        episodes(2)
    )
    assert failed.scores == [10.0, 20.0] and failed.metrics["reward/x/failed"] == 2.0


def test_what_a_policy_let_pass_is_said_once_a_reward(capsys: pytest.CaptureFixture[str]) -> None:
    tolerant = scorer(
        component(1.0, NAN, name="a", on_nan="neutral"), component(1.0, "x", name="b", on_error="neutral")
    )
    for _ in range(3):
        tolerant.score(episodes(2))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("warning: reward '") for line in lines)
    assert "score 1 is nan" in lines[0] and "score 1 is str 'x'" in lines[1]


def test_none_counts_as_nothing_in_the_sum() -> None:
    scored = scorer(component(None, 2.0, name="a"), component(10.0, None, name="b")).score(episodes(2))
    assert scored.scores == [10.0, 2.0] and scored.metrics["reward/a/absent"] == 1.0


def test_single_tokens_are_added_up_apart_from_whole_responses() -> None:
    one = Episode(prompt="p", completion="c", columns={}, prompt_ids=(1,), response_ids=(2, 3, 4))
    mixed = scorer(
        component([1.0, 0.0, 2.0], 0.5, name="a", weight=2.0),
        component([0.0, 1.0, 0.0], None, name="b"),
        component(10.0, 20.0, name="c"),
    )
    scored = mixed.score([one] * 2)
    assert scored.token_scores == [[2.0, 1.0, 4.0], None]
    assert scored.scores == [10.0, 21.0] and scored.raw == [17.0, 21.0]
    assert scored.metrics["reward/a/mean"] == 1.75  # 3 and 0.5


def test_scores_of_forced_tokens_count_in_the_text_and_not_in_what_the_policy_got() -> None:
    one = Episode(prompt="p", completion="c", columns={}, prompt_ids=(1,), response_ids=(2, 3, 4))
    mixed = scorer(component([1.0, 0.0, 2.0], [1.0, 4.0, 2.0], name="a", weight=2.0), component(10.0, 20.0, name="b"))
    scored = mixed.score([one] * 2, [1, 2])
    assert scored.raw == [10.0 + 4.0, 20.0 + 4.0] and scored.of_texts == [10.0 + 6.0, 20.0 + 14.0]
    assert scored.metrics["reward/a/mean"] == 2.0 and scored.metrics["reward/a/std"] == 0.0
    assert mixed.score([one] * 2).raw == scored.of_texts


def test_a_gate_reads_what_the_other_reward_said_before_scaling() -> None:
    gated = scorer(
        component(0.2, 0.9, None, name="right", weight=0.0, clip=0.1),
        component(5.0, 6.0, 7.0, name="style", gate=Gate("right", 0.5)),
    )
    assert gated.score(episodes(3)).scores == [0.0, 6.0, 0.0]


def test_the_scales_of_rewards_survive_saving() -> None:
    def fresh() -> Scorer:
        return scorer(component(1.0, 3.0, name="a", normalise="running"), component(1.0, 1.0, name="b"))

    first = fresh()
    first.score(episodes(2))
    assert set(first.state()) == {"running_scale", "reward_scales"} and set(first.state()["reward_scales"]) == {"a"}
    second = fresh()
    second.load(first.state())
    assert second.state() == first.state() != fresh().state()
    assert set(scorer(component(1.0)).state()) == {"running_scale"}, "a checkpoint without such rewards is as before"


def test_a_close_that_fails_is_said_and_the_others_are_closed(capsys: pytest.CaptureFixture[str]) -> None:
    broken, fine = Fixed(), Fixed()
    broken.close = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    scorer((broken, 1.0), (fine, 1.0)).close()
    assert fine.is_closed
    assert capsys.readouterr().out == "warning: reward 'reward': close raised ZeroDivisionError: division by zero\n"
