"""A PPO run put together in memory, from keys of a configuration."""

from collections.abc import Mapping
from typing import Any

from rlhf.config import PPOConfig
from rlhf.ppo.run.assembly import Parts
from rlhf.ppo.run.stage import assemble_alone


def assembled(given: Mapping[str, Any]) -> Parts:
    """Return the parts of the PPO run that a configuration describes; blocks are never compiled.

    Raises:
        RlhfError: several processes, or bad config, data, model or reward.
    """
    return assemble_alone(PPOConfig.model_validate(given), "lab measures in one process")
