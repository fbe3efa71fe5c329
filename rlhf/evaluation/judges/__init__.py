"""Judges: each scores texts, or prefers one of two responses to a prompt, and is audited itself.

Belongs here: one judge and what it says. Not here: the comparison of policies that uses it.
"""
