"""Tests of rlhf.doctor.verdicts."""

import pytest

from rlhf.doctor.verdicts import totals
from rlhf.rewards.kinds.function import FunctionReward


@pytest.fixture
def calls(monkeypatch) -> dict[FunctionReward, list[int]]:
    """How many episodes each reward was asked about, call by call."""
    score, noted = FunctionReward.score, {}

    def counted(self, episodes):
        noted.setdefault(self, []).append(len(episodes))
        return score(self, episodes)

    monkeypatch.setattr(FunctionReward, "score", counted)
    return noted


def test_one_call_of_each_reward_serves_the_checks_of_same_score_and_exploration(config, workshop, examined, calls):
    rewards = [{"kind": "function", "path": f"{workshop / 'rewards.py'}:{name}"} for name in ("share_of_e", "length")]
    findings = examined(config(rewards=rewards))
    # The trial; then the doctor: all in their order, all turned round, and four alone.
    assert list(calls.values()) == [[8, 8, 8, 1, 1, 1, 1]] * 2
    checks = {f"{check}, rewards[{place}] (function)" for check in ("same score", "exploration") for place in (0, 1)}
    assert checks <= findings.keys()


def test_a_reward_that_fails_is_not_asked_again(config, workshop, examined, calls):
    reward = {"kind": "function", "path": f"{workshop / 'rewards.py'}:nan", "on_nan": "neutral"}
    findings = examined(config(rewards=[reward]))
    assert list(calls.values()) == [[8, 8]]  # the trial goes on without; the doctor asks once
    same = findings["same score, rewards[0] (function)"]
    assert (same.state, same.measured) == ("warning", "it failed") and "score 0 is nan" in same.advice
    assert "exploration, rewards[0] (function)" not in findings


def test_scores_of_single_tokens_count_with_their_sum() -> None:
    assert totals([1.5, [0.5, 2.0], None]) == [1.5, 2.5, 0.0]
