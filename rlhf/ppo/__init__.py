"""The PPO stage, and PPO from Python: collect with the policy, learn from what was collected."""

from rlhf.ppo.api import PPOTrainer
from rlhf.ppo.assembly import train_ppo
from rlhf.ppo.callbacks import Callback

__all__ = ["Callback", "PPOTrainer", "train_ppo"]
