"""The PPO stage: collect with the policy, learn from what was collected. `trainer.py` shows one step.

At home here: what a step is made of. Where episodes begin, what they score, and how a run is set up, logged and saved
stand in the folders below; a run from Python stands in `rlhf/api/`.
"""

from rlhf.ppo.run.stage import train_ppo

__all__ = ["train_ppo"]
