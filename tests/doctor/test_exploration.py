"""Tests of rlhf.doctor.exploration."""

from types import SimpleNamespace

import pytest
import torch

from rlhf.doctor.exploration import rewards_are_met
from rlhf.doctor.verdicts import Verdict
from rlhf.errors import RewardError

FUNCTIONS = """
def demonstrated(completions, label, **columns):
    return [float(each == 9) for each in label]
def never(completions):
    return [0.0] * len(completions)
"""


@pytest.fixture
def found():
    """A function that returns what is said of one reward; `dropped` are rows without tokens."""

    def find(at_prompts, at_resets=(), *, resets=False, dropped=(), error=None):
        scores = [*at_prompts, *at_resets] if error is None else error
        verdict = Verdict(name="rewards[0]", reward=SimpleNamespace(), scores=scores)
        forced = torch.tensor([[False, False]] * len(at_prompts) + [[True, False]] * len(at_resets))
        mask = ~forced
        mask[list(dropped)] = False
        trial = SimpleNamespace(experience=SimpleNamespace(rollout=SimpleNamespace(forced=forced, response_mask=mask)))
        return rewards_are_met(SimpleNamespace(trainer=SimpleNamespace(resets=resets or None)), trial, [verdict])

    return find


DENSE = [0.1 * number for number in range(20)]


@pytest.mark.parametrize(
    ("scores", "state"),
    [
        (DENSE, "ok"),
        ([0.0] * 18 + [1.0] * 2, "ok"),
        ([0.0] * 19 + [1.0], "warning"),
        ([0.0] * 28 + [-1.0] * 3 + [1.0], "warning"),  # a few that are worse teach little
        ([1e-5 * number for number in range(31)] + [1.0], "warning"),  # nor does noise
        ([1.0] * 19 + [0.0], "ok"),  # met nearly always: nothing is to be explored
        ([0.3] * 20, "ok"),
        ([0.3] * 10 + [0.3 + 1e-9] * 10, "ok"),
    ],
)
def test_a_policy_that_seldom_meets_the_reward_is_warned_of(scores, state, found) -> None:
    assert [finding.state for finding in found(scores)] == [state]


def test_a_reward_without_a_better_episode_says_so(found) -> None:
    (finding,) = found([0.25] * 20)
    assert finding.measured == "no episode is better than the usual 0.25"
    assert "docs/resets.md" in finding.advice


def test_the_counts_are_told_by_where_episodes_began(found) -> None:
    (finding,) = found([0.0] * 15 + [1.0], [0.0] * 4 + [1.0, 2.0], resets=True)
    assert finding.measured == "better than the usual 0: 1 of 16 at prompts, 2 of 6 at resets"
    assert finding.state == "ok"


@pytest.mark.parametrize(
    ("at_resets", "state"), [([0.0] * 12, "warning"), ([], "warning"), ([0.0] * 6 + [1.0] * 6, "ok"), ([1.0], "ok")]
)
def test_resets_that_do_not_meet_it_either_are_no_remedy(at_resets, state, found) -> None:
    assert "reset.fraction" in found([0.0] * 19 + [1.0])[0].advice
    (finding,) = found([0.0] * 19 + [1.0], at_resets, resets=True)
    assert finding.state == state
    assert ("resets do not help" in finding.advice) == (state == "warning")


def test_dropped_episodes_do_not_count(found) -> None:
    assert found([0.0, 0.0, 5.0], dropped=[2])[0].measured == "no episode is better than the usual 0"


def test_episodes_that_all_begin_at_resets_are_held_against_their_own_usual_score(found) -> None:
    assert found([], [0.0, 0.0, 1.0], resets=True)[0].measured == "better than the usual 0: 1 of 3 at resets"


def test_resets_are_warned_of_where_every_reward_is_met_at_the_prompts(found) -> None:
    exploration, resets = found(DENSE, [0.5], resets=True)
    assert (exploration.state, resets.name, resets.state) == ("ok", "resets", "warning")
    assert len(found(DENSE)) == 1
    assert len(found([0.0] * 16 + [1.0] * 4, [1.0], resets=True)) == 1  # 20 %
    assert len(found([], [0.0, 1.0], resets=True)) == 1  # nothing is known of the prompts


def test_a_reward_that_fails_has_been_told_of(found) -> None:
    assert found([0.0], error=RewardError("no")) == []
    assert found([0.0], error=RewardError("no"), resets=True) == []


@pytest.mark.slow
def test_a_reward_that_only_resets_meet_is_well_with_them_and_fails_without(
    config, tiny, workshop, tmp_path, examined, troubles
) -> None:
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS)
    rewards = [{"kind": "function", "path": f"{path}:demonstrated"}]
    plain = examined(config(rewards=rewards))
    assert troubles(plain) == {"reward scale": "failing"}
    assert "docs/resets.md" in plain["reward scale"].advice
    begun = examined(config(rewards=rewards, reset=tiny.reset_section(workshop, 0.5)))
    assert troubles(begun) == {}
    measured = begun["exploration, rewards[0] (function)"].measured
    assert ": 0 of " in measured and " at resets" in measured


def test_each_reward_is_looked_at_alone(config, workshop, tmp_path, examined) -> None:
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS)
    rewards = [{"kind": "model", "path": str(workshop / "reward_model")}, {"kind": "function", "path": f"{path}:never"}]
    findings = examined(config(rewards=rewards))
    assert " at prompts" in findings["exploration, rewards[0] (model)"].measured
    assert findings["exploration, rewards[1] (function)"].measured == "no episode is better than the usual 0"


def test_scores_that_a_clip_makes_equal_fail(config, examined, troubles) -> None:
    findings = examined(config(reward="length", score__clip=0.5, kl_coef=0.0))
    assert troubles(findings) == {"reward scale": "failing"}
