"""PPO raises its reward, and stays near the reference when told to."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def learning_curve(tiny: ModuleType, workshop: Path, num_steps: int, **changes: Any) -> tuple[list[float], float]:
    """Mean scores of the steps, and the KL to the reference that the last one found."""
    config = tiny.ppo_config(workshop, microbatch_tokens=512, sampling={"max_new_tokens": 5}, **changes)
    made = tiny.parts(config)
    prompts = made.prompts * (config.rollout_batch_size // 8)
    results = [made.trainer.step(prompts) for _ in range(num_steps)]
    scores = [float(result.experience.rollout.scores.mean()) for result in results]
    return scores, made.trainer.sequence_kl(results[-1].experience)


def test_ppo_learns(tiny: ModuleType, workshop: Path) -> None:
    scores, _ = learning_curve(tiny, workshop, 10, kl_coef=0.0, rollout_batch_size=16, optimizer__learning_rate=1e-2)
    assert sum(scores[-2:]) / 2 > sum(scores[:2]) / 2 + 0.04


@pytest.mark.slow
def test_a_large_kl_coefficient_holds_the_policy_near_the_reference(tiny: ModuleType, workshop: Path) -> None:
    settings = {"rollout_batch_size": 64, "optimizer__learning_rate": 3e-3}
    (_, free), (_, held) = (learning_curve(tiny, workshop, 10, kl_coef=coef, **settings) for coef in (0.0, 1.0))
    assert free > 2.0
    assert held < 0.5 * free
