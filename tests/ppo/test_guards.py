"""What stops a run of PPO before anything moves."""

import dataclasses
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rlhf.errors import GuardStop, RewardError


def test_a_reward_that_is_not_finite_stops_before_anything_moves(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reward="nan"))
    before = tiny.weights(made.trainer)
    with pytest.raises(RewardError, match="score 0 is nan") as caught:
        made.trainer.step(made.prompts)
    assert caught.value.exit_status == 5
    assert all(torch.equal(before[name], weight) for name, weight in tiny.weights(made.trainer).items())


@pytest.mark.parametrize(
    ("name", "found"),
    [("logprobs", "logprobs"), ("ref_logprobs", "rewards"), ("values", "values"), ("scores", "rewards")],
)
def test_a_rollout_that_is_not_finite_is_refused(tiny: ModuleType, workshop: Path, name: str, found: str) -> None:
    made = tiny.parts(tiny.ppo_config(workshop))
    tensor = torch.zeros(2) if name == "scores" else torch.zeros(2, 2)
    tensor.view(-1)[0] = torch.nan
    batch = tiny.experience(made.trainer, tiny.hand_rollout([2, 1], 2, **{name: tensor}))
    with pytest.raises(GuardStop, match=f"not finite: .*{found}") as caught:
        made.trainer.guard(batch)
    assert caught.value.exit_status == 6


def test_a_loss_that_is_not_finite_moves_nothing(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop))
    trainer, collected = made.trainer, tiny.collected(made)
    batch = tiny.experience(trainer, collected.rollout)
    bad = dataclasses.replace(batch, advantages=torch.where(collected.rollout.response_mask, torch.nan, 0.0))
    before = tiny.weights(trainer)
    with pytest.raises(GuardStop, match="not finite in an update: policy_loss"):
        trainer.update(bad, collected.microbatches.all())
    assert all(torch.equal(before[name], weight) for name, weight in tiny.weights(trainer).items())


def test_a_policy_too_far_from_the_reference_stops_the_run(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, kl_control__max_kl=1.0))
    far = {"logprobs": torch.full((2, 2), -1.0), "ref_logprobs": torch.full((2, 2), -1.7)}
    with pytest.raises(
        GuardStop, match=r"KL to the reference is 1\.4 nats per sequence, above kl_control\.max_kl \(1\.0\)"
    ):
        made.trainer.guard(tiny.experience(made.trainer, tiny.hand_rollout([2, 2], 2, **far)))
    made.trainer.guard(tiny.experience(made.trainer, tiny.hand_rollout([1, 1], 2, **far)))  # 0.7
