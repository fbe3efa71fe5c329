"""A PPO run assembled in memory from keys of a configuration, and its steps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.config import PPOConfig
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.stage import assemble_alone
from rlhf.ppo.run.steps import PPOSteps


def assembled(given: Mapping[str, Any]) -> PPORun:
    """Return the parts of the PPO run that a configuration describes; blocks are never compiled.

    Raises:
        RlhfError: several processes, or bad config, data, model or reward.
    """
    return assemble_alone(PPOConfig.model_validate(given), "lab measures in one process")


def do_steps(parts: PPORun, num_steps: int, samples: Path) -> list[dict[str, float]]:
    """Do the first steps of a run and return the metrics of each; samples of responses go into a directory."""
    steps = PPOSteps(parts.trainer, ListedPrompts(parts.prompts, parts.trainer.config), samples)
    return [steps.step(index) for index in range(num_steps)]
