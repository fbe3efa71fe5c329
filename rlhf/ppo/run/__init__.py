"""A PPO run: models and data put together, steps run with logs, samples, checkpoints and cost, the result saved.

At home here: everything around a step. Not: what a step computes (`rlhf/ppo/`).
"""
