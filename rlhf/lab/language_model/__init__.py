"""Experiments on a language model, with the PPO and the SFT of the stages.

Belongs here: what assembles its own run and measures it. Not here: a table of logits, or how a page looks.
"""
