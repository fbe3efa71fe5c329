"""A PPO run put together in memory, from keys of a configuration."""

from collections.abc import Mapping
from typing import Any

from rlhf.config import PPOConfig
from rlhf.ppo.assembly import assemble_alone
from rlhf.ppo.parts import Parts


def assembled(given: Mapping[str, Any]) -> Parts:
    """Return the parts of the PPO run that a configuration describes; blocks are never compiled.

    Raises:
        RlhfError: several processes, or bad config, data, model or reward.
    """
    return assemble_alone(PPOConfig.model_validate(given), "lab measures in one process")
