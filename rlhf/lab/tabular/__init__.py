"""Experiments on tables of logits, sampled with the mathematics that trains language models.

Belongs here: what needs only `functional/` and `oracle/`, and fits to the numbers. Not here: a model or a stage.
"""
