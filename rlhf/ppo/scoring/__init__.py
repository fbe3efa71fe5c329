"""From what each reward says to one score an episode: weights, gates, scales, clips, dropped episodes.

At home here: combining rewards, over all processes. Not: a single reward (`rlhf/rewards/`), nor the KL penalty.
"""
