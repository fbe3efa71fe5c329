"""Experiments on tables of logits, sampled with the mathematics that trains language models.

At home here: what needs `functional/` and `oracle/` alone, and what is fitted to its numbers. Not: a model or a stage.
"""
