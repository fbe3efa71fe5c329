"""Combines the rewards into one score per episode: weights, gates, scales, clips, dropped episodes.

Belongs here: combining rewards, over all processes. Not here: a single reward (`rlhf/rewards/`), or the KL penalty.
"""
