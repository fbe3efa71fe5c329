"""A PPO run: assembles models and data, runs steps with logs, samples, checkpoints and cost, saves the result.

Belongs here: everything around a step. Not here: what a step computes (`rlhf/ppo/`).
"""
