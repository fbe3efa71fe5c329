"""Experiments on a language model, with the PPO and the SFT of the stages.

At home here: what assembles a run of its own and measures it. Not: a table of logits, or how a page looks.
"""
