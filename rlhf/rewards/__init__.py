"""Rewards: they score responses, with a deadline, checks, a cache and policies for failures.

Belongs here: one reward and its answer. `rlhf/ppo/scoring/` combines several rewards into one score.
"""
