"""Experiments on a language model, with the PPO and the SFT of the stages.

Belongs here: what assembles a run of its own and measures it. Not here: a table of logits, or how a page looks.
"""
