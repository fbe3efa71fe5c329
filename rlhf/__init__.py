"""RLHF with PPO in the Hugging Face ecosystem: behaviour cloning, a reward model, a value head, evaluation."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rlhf.allocator import keep_memory

if TYPE_CHECKING:
    from rlhf.api.callbacks import Callback, Trainer
    from rlhf.api.evaluation import evaluate
    from rlhf.api.generation import generate
    from rlhf.api.ppo import PPOTrainer
    from rlhf.api.reward_model import RewardTrainer
    from rlhf.api.sft import SFTTrainer
    from rlhf.config import EvaluateSettings, GenerateSettings, PPOSettings, RewardSettings, SFTSettings

__all__ = [
    "Callback",
    "EvaluateSettings",
    "GenerateSettings",
    "PPOSettings",
    "PPOTrainer",
    "RewardSettings",
    "RewardTrainer",
    "SFTSettings",
    "SFTTrainer",
    "Trainer",
    "evaluate",
    "generate",
]

_HOMES = {
    "Callback": "rlhf.api.callbacks",
    "EvaluateSettings": "rlhf.config",
    "GenerateSettings": "rlhf.config",
    "PPOSettings": "rlhf.config",
    "PPOTrainer": "rlhf.api.ppo",
    "RewardSettings": "rlhf.config",
    "RewardTrainer": "rlhf.api.reward_model",
    "SFTSettings": "rlhf.config",
    "SFTTrainer": "rlhf.api.sft",
    "Trainer": "rlhf.api.callbacks",
    "evaluate": "rlhf.api.evaluation",
    "generate": "rlhf.api.generation",
}

# peft imports bitsandbytes wherever it is installed, which warns on some processors of a kernel that is not used here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    """Import a public name on first use: reading a config needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOMES[name].startswith("rlhf.api"):
        keep_memory()
    return getattr(import_module(_HOMES[name]), name)
