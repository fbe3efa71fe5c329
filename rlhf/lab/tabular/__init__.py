"""Experiments on tables of logits, sampled with the mathematics that trains language models.

Belongs here: what needs `functional/` and `oracle/` alone, and fits to its numbers. Not here: a model or a stage.
"""
