"""The models of RLHF: the policy with its value head, the reference, the scalar model, and what they read.

Belongs here: what a model computes. Loading and saving go into `pretrained/`, fast passes into `passes/`.
"""
