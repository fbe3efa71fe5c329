"""The schema of every YAML file, and the one loader."""

from rlhf.config.evaluate import EvaluateConfig, GenerateConfig
from rlhf.config.ppo import PPOConfig, PPOSettings
from rlhf.config.reward_model import RewardModelConfig, RewardSettings
from rlhf.config.run import RunConfig
from rlhf.config.sft import SftConfig, SFTSettings

__all__ = [
    "EvaluateConfig",
    "GenerateConfig",
    "PPOConfig",
    "PPOSettings",
    "RewardModelConfig",
    "RewardSettings",
    "RunConfig",
    "SFTSettings",
    "SftConfig",
]
