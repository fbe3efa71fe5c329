"""Tests of rlhf.ppo.run.held_out."""

from pathlib import Path
from types import ModuleType

import pytest

from rlhf.errors import ConfigError
from rlhf.ppo.run.held_out import held_out_metrics


@pytest.mark.slow
def test_an_evaluation_leaves_no_trace_in_the_training(tiny: ModuleType, workshop: Path) -> None:
    reward = {"kind": "length", "normalise": "running", "at_most": 2}
    plain, watched = (tiny.ppo_trainer(workshop, reward) for _ in range(2))
    before = watched.evaluate(tiny.BEGINNINGS)
    assert before["evaluation/kl"] == 0.0 and before == watched.evaluate(tiny.BEGINNINGS), "the same random numbers"
    plain.train(tiny.prompt_rows(workshop))
    history = watched.train(
        tiny.prompt_rows(workshop), evaluation=lambda own: {"length": own.evaluate(["A"])["evaluation/kl"]}
    )
    assert "length" in history[-1]
    tiny.assert_equal(tiny.policy_state(plain), tiny.policy_state(watched))


def test_its_means_are_those_of_the_responses_that_the_rewards_read(tiny: ModuleType, workshop: Path) -> None:
    seen: list[int] = []

    def lengths(completion_ids: list[list[int]]) -> list[float]:
        seen[:] = [len(ids) for ids in completion_ids]
        return [float(length) for length in seen]

    made = tiny.ppo_trainer(workshop, lengths)
    tiny.stir(made.ppo, 0.02)
    found = made.evaluate(tiny.BEGINNINGS[:5])
    assert len(seen) == 5 and found["evaluation/scores"] == found["evaluation/response_length"] == sum(seen) / 5
    assert found["evaluation/kl"] != 0.0 and 0.0 <= found["evaluation/share_ended"] <= 1.0


def test_each_process_needs_a_prompt(tiny: ModuleType, workshop: Path) -> None:
    with pytest.raises(ConfigError, match="evaluation: 0 prompts for 1 processes"):
        held_out_metrics(tiny.ppo_trainer(workshop).ppo, [])
