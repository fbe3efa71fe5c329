"""The PPO stage: collect with the policy, learn from what was collected."""

from rlhf.ppo.assembly import train_ppo

__all__ = ["train_ppo"]
