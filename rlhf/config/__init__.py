"""The schema of every YAML file, and the one loader."""

from rlhf.config.evaluate import EvaluateConfig, EvaluateSettings, GenerateConfig, GenerateSettings
from rlhf.config.ppo import PPOConfig, PPOSettings
from rlhf.config.preferences import LabelConfig, SamplePairsConfig, ScoreConfig
from rlhf.config.reward_model import RewardModelConfig, RewardSettings
from rlhf.config.run import RunConfig
from rlhf.config.sft import SftConfig, SFTSettings

__all__ = [
    "EvaluateConfig",
    "EvaluateSettings",
    "GenerateConfig",
    "GenerateSettings",
    "LabelConfig",
    "PPOConfig",
    "PPOSettings",
    "RewardModelConfig",
    "RewardSettings",
    "RunConfig",
    "SFTSettings",
    "SamplePairsConfig",
    "ScoreConfig",
    "SftConfig",
]
