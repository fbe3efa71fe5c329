"""The PPO stage: collect a batch with the policy, then learn from it. `trainer.py` shows one step.

Belongs here: the parts of one step. The folders below hold where episodes begin, how they are scored, and how a run is
set up, logged and saved; `rlhf/api/` runs PPO from Python.
"""

from rlhf.ppo.run.stage import train_ppo

__all__ = ["train_ppo"]
