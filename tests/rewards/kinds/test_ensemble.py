import math

import pytest

from rlhf.errors import RewardError
from rlhf.rewards.checks import BadScores, checked_scores
from rlhf.rewards.kinds.ensemble import EnsembleReward
from rlhf.rewards.protocol import Episode, Observing

EPISODES = [Episode(prompt="p", completion="c", columns={}, prompt_ids=(1,), response_ids=(2,))] * 2
NAN = math.nan


class Member:
    def __init__(self, *scores):
        self.scores, self.is_closed = scores, False

    def score(self, episodes):
        return checked_scores(self.scores, len(episodes), "member")

    def close(self):
        self.is_closed = True


# 1, 2, 6 has mean 3 and biased deviation sqrt((4 + 1 + 9) / 3); 4, 4, 4 has 4 and 0.
SPREAD = math.sqrt(14 / 3)
MEMBERS = [(1.0, 4.0), (2.0, 4.0), (6.0, 4.0)]


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("mean", [3.0, 4.0]), ("min", [1.0, 4.0]), ("mean_minus_std", [3.0 - 0.5 * SPREAD, 4.0])],
)
def test_members_are_combined_by_hand(combine, expected):
    ensemble = EnsembleReward([Member(*scores) for scores in MEMBERS], combine=combine, k=0.5)
    assert ensemble.score(EPISODES) == pytest.approx(expected)


def test_the_spread_is_noted_once():
    ensemble = EnsembleReward([Member(*scores) for scores in MEMBERS], combine="min", k=1.0)
    assert isinstance(ensemble, Observing) and ensemble.observations() == {}
    ensemble.score(EPISODES)
    assert ensemble.observations() == {"disagreement": pytest.approx([SPREAD, 0.0])}
    assert ensemble.observations() == {}
    assert ensemble.score([]) == []


def test_an_episode_that_one_member_cannot_score_has_no_score():
    ensemble = EnsembleReward([Member(1.0, 3.0), Member(NAN, 5.0)], combine="mean", k=1.0)
    with pytest.raises(BadScores, match="member: score 0 is nan") as caught:
        ensemble.score(EPISODES)
    assert caught.value.scores == [None, 4.0] and set(caught.value.problems) == {0}
    assert ensemble.observations() == {"disagreement": [1.0]}


def test_a_member_that_fails_altogether_fails_the_ensemble():
    with pytest.raises(RewardError, match="expected 2 floats, got tuple of 1"):
        EnsembleReward([Member(1.0, 2.0), Member(1.0)], combine="mean", k=1.0).score(EPISODES)


def test_closing_closes_every_member():
    members = [Member(), Member()]
    EnsembleReward(members, combine="mean", k=1.0).close()
    assert all(member.is_closed for member in members)
