"""Tests of rlhf.ppo.scoring."""

import math
from collections.abc import Sequence

import pytest

from rlhf.config.ppo import ScoreSection
from rlhf.errors import RewardError
from rlhf.ppo.scoring import RunningScale, Scorer
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


def scorer(*rewards: tuple[Fixed, float], **settings: object) -> Scorer:
    return Scorer(rewards, ScoreSection.model_validate(settings), Processes())


def test_the_raw_score_is_the_weighted_sum() -> None:
    both = scorer((Fixed(1.0, 2.0), 0.5), (Fixed(10.0, -1.0), 2.0))
    assert both.raw(episodes(2)) == [20.5, -1.0]  # 0.5 * 1 + 2 * 10; 0.5 * 2 - 2 * 1


def test_a_failing_reward_raises_its_own_error() -> None:
    with pytest.raises(RewardError, match="no idea"):
        scorer((Fixed(1.0), 1.0), (Failing(), 1.0)).raw(episodes(1))


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
