"""Configs of the tiny PPO, and a way to examine what is assembled from them."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.config import PPOConfig
from rlhf.doctor.examination import assembled, checked
from rlhf.doctor.finding import Finding
from rlhf.ppo.run.assembly import PPORun

Examine = Callable[..., dict[str, Finding]]


@pytest.fixture
def config(tiny: ModuleType, workshop: Path) -> Callable[..., PPOConfig]:
    """A factory of healthy configs: `config(kl_coef=0.1, reward="length")`, or `model_reward=PATH`."""

    def make(*, model_reward: Path | None = None, **changes: Any) -> PPOConfig:
        if model_reward is not None:
            changes["rewards"] = [{"kind": "model", "path": str(model_reward)}]
        return tiny.ppo_config(workshop, **changes)

    return make


@pytest.fixture
def examined() -> Examine:
    """A function that examines a config, after `change` had its way with the parts, and returns findings by name."""

    def examine(config: PPOConfig, change: Callable[[PPORun], object] = lambda parts: None) -> dict[str, Finding]:
        parts = assembled(config)
        change(parts)
        return {finding.name: finding for finding in checked(parts)}

    return examine


@pytest.fixture
def troubles() -> Callable[[dict[str, Finding]], dict[str, str]]:
    """A function that returns the states of all findings but those that are ok."""
    return lambda findings: {name: each.state for name, each in findings.items() if each.state != "ok"}
