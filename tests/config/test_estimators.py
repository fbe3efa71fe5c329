"""Tests of rlhf.config.estimators: every rung is wired to its function, and learns on a language model."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.config.estimators import ESTIMATORS
from rlhf.functional.advantages import baseline, gae, reward_to_go, trajectory_return
from rlhf.functional.groups import group_normalised, rloo
from rlhf.functional.losses import policy_gradient_loss, policy_loss
from rlhf.ppo.experience import estimated_advantages
from rlhf.ppo.tally import NAMES
from rlhf.ppo.trainer import policy_objective

RUNGS = {
    "trajectory": lambda r, v, m: trajectory_return(r, m, 0.9),
    "reward_to_go": lambda r, v, m: reward_to_go(r, m, 0.9),
    "baseline": lambda r, v, m: baseline(r, v, m, 0.9),
    "gae": lambda r, v, m: gae(r, v, m, 0.9, 0.95),
    "rloo": lambda r, v, m: rloo(r, m, 0.9, 4),
    "group": lambda r, v, m: group_normalised(r, m, 0.9, 4),
}
MASK = torch.tensor([[True, True, True], [True, False, False], [True, True, False], [True, True, True]]).repeat(2, 1)


def grid(seed: int) -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))


def test_every_estimator_of_the_table_is_tried_here() -> None:
    assert list(RUNGS) == list(ESTIMATORS)


@pytest.mark.parametrize("advantage", RUNGS)
def test_a_rung_is_its_function(tiny: ModuleType, workshop: Path, advantage: str) -> None:
    config = tiny.ppo_config(workshop, advantage=advantage, num_samples_per_prompt=4, gamma=0.9)
    found = estimated_advantages(grid(0), grid(1), MASK, config)
    assert torch.equal(found, RUNGS[advantage](grid(0), grid(1), MASK))
    others = [RUNGS[name](grid(0), grid(1), MASK) for name in RUNGS if name != advantage]
    assert not any(torch.equal(found, other) for other in others)


def test_an_objective_is_its_loss(tiny: ModuleType, workshop: Path) -> None:
    logprobs, old_logprobs, advantages = -grid(2).abs(), -grid(3).abs(), grid(4)
    args = (logprobs, old_logprobs, advantages, MASK)
    clipped, free, plain = (
        policy_objective(*args, tiny.ppo_config(workshop, **changes), 30.0).loss
        for changes in ({"clip_range": 0.1}, {"clip_range": None}, {"objective": "policy_gradient"})
    )
    assert clipped == policy_loss(*args, 0.1, num_tokens=30.0).loss
    assert free == policy_loss(*args, None, num_tokens=30.0).loss
    assert plain == policy_gradient_loss(*args, num_tokens=30.0).loss
    assert len({float(clipped), float(free), float(plain)}) == 3


@pytest.mark.sweep(3)
@pytest.mark.parametrize("objective", ["policy_gradient", "ppo"])
@pytest.mark.parametrize("advantage", RUNGS)
def test_every_rung_trains_a_language_model(tiny: ModuleType, workshop: Path, advantage: str, objective: str) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, advantage=advantage, objective=objective, num_samples_per_prompt=4))
    trainer = made.trainer
    before = tiny.weights(trainer)
    result = trainer.step(made.prompts[:2])
    assert [episode.prompt for episode in result.collected.episodes] == [
        made.prompts[i].raw for i in (0,) * 4 + (1,) * 4
    ]
    assert result.updates[0].ratio_deviation == 0.0 and len(result.updates) == 4
    assert all(math.isfinite(number) for update in result.updates for number in update.means.values())
    moved = {name for name, weight in tiny.weights(trainer).items() if not torch.equal(weight, before[name])}
    assert {name for name in before if name.startswith("lm.model.layers")} <= moved
    has_critic = advantage in ("baseline", "gae")
    assert any(name.startswith("value_head.") for name in moved) == has_critic


def test_without_a_critic_the_value_loss_reaches_no_weight(tiny: ModuleType, workshop: Path) -> None:
    """The trunk, which the value head shares, gets the gradient of the policy loss alone."""
    made = tiny.parts(tiny.ppo_config(workshop, advantage="reward_to_go"))
    trainer, collected = made.trainer, tiny.collected(made)
    tiny.stir(trainer, 0.05)  # a value head that is not 0 would hand gradients down
    batch = tiny.experience(trainer, collected.rollout)
    rows, config = torch.arange(8), trainer.config
    loss, numbers, _ = trainer.loss(batch.rows(rows), 10.0)
    sums = dict(zip(NAMES, numbers.tolist(), strict=True))
    assert sums["value_loss"] > 0
    assert float(loss.detach()) == pytest.approx(sums["policy_loss"], rel=1e-6) and config.value_coef > 0


@pytest.mark.slow
def test_group_relatives_learn(tiny: ModuleType, workshop: Path) -> None:
    settings: dict[str, Any] = {"kl_coef": 0.0, "rollout_batch_size": 16, "optimizer__learning_rate": 1e-2}
    settings |= {"sampling": {"max_new_tokens": 5}, "microbatch_tokens": 512}
    for advantage in ("rloo", "group"):
        made = tiny.parts(tiny.ppo_config(workshop, advantage=advantage, num_samples_per_prompt=4, **settings))
        scores = [float(made.trainer.step(made.prompts[:4]).experience.rollout.scores.mean()) for _ in range(10)]
        assert sum(scores[-2:]) / 2 > sum(scores[:2]) / 2 + 0.04, advantage
