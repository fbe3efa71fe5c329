"""Tests of rlhf.doctor.exploration."""

from types import SimpleNamespace

import pytest
import torch

from rlhf.doctor.exploration import reward_is_met

FUNCTIONS = """
def demonstrated(completions, label, **columns):
    return [float(each == 9) for each in label]
"""


def found(at_prompts, at_resets=(), *, resets=False, dropped=()):
    """What is said of episodes with these raw scores; `dropped` are rows without tokens."""
    scores = [*at_prompts, *at_resets]
    forced = torch.tensor([[False, False]] * len(at_prompts) + [[True, False]] * len(at_resets))
    mask = ~forced
    mask[list(dropped)] = False
    rollout = SimpleNamespace(forced=forced, response_mask=mask)
    trial = SimpleNamespace(experience=SimpleNamespace(rollout=rollout), collected=SimpleNamespace(raw_scores=scores))
    parts = SimpleNamespace(trainer=SimpleNamespace(resets=object() if resets else None))
    return reward_is_met(parts, trial)


@pytest.mark.parametrize(
    ("scores", "state"),
    [
        ([float(number) for number in range(20)], "ok"),
        ([0.0] * 18 + [1.0] * 2, "ok"),
        ([0.0] * 19 + [1.0], "warning"),
        ([1.0] * 19 + [0.0], "ok"),  # met nearly always: nothing is to be explored
        ([0.3] * 20, "skipped"),
        ([0.3] * 10 + [0.3 + 1e-9] * 10, "skipped"),
    ],
)
def test_a_policy_that_seldom_meets_the_reward_is_warned_of(scores, state) -> None:
    assert found(scores).state == state


def test_the_counts_are_told_by_where_episodes_began() -> None:
    finding = found([0.0] * 15 + [1.0], [0.0] * 4 + [1.0, 2.0], resets=True)
    assert finding.measured.endswith("the usual 0: 1 of 16 at prompts, 2 of 6 at resets")
    assert finding.state == "ok"


def test_resets_are_advised_only_where_there_are_none() -> None:
    assert "reset.fraction" in found([0.0] * 19 + [1.0]).advice
    assert found([0.0] * 19 + [1.0], resets=True).state == "ok"


def test_dropped_episodes_do_not_count() -> None:
    assert found([0.0, 0.0, 5.0], dropped=[2]).state == "skipped"


def test_episodes_that_all_begin_at_resets_are_held_against_their_own_usual_score() -> None:
    assert found([], [0.0, 0.0, 1.0], resets=True).measured.endswith("the usual 0: 1 of 3 at resets")


def test_a_reward_that_only_resets_meet_is_well_with_them_and_fails_without(
    config, lab, workshop, tmp_path, examined, troubles
) -> None:
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS)
    rewards = [{"kind": "function", "path": f"{path}:demonstrated"}]
    plain = examined(config(rewards=rewards))
    assert troubles(plain) == {"reward scale": "failing", "exploration": "skipped"}
    assert "docs/resets.md" in plain["reward scale"].advice
    begun = examined(config(rewards=rewards, reset=lab.reset_section(workshop, 0.5)))
    assert troubles(begun) == {}
    assert ": 0 of " in begun["exploration"].measured and " at resets" in begun["exploration"].measured
