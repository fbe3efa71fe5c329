"""The models of RLHF: the policy with its value head, the reference, the scalar model, and what they read.

At home here: what a model computes. Loading and saving stand in `pretrained/`, fast passes in `passes/`.
"""
