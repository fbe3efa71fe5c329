"""Preferences from the policy itself: its answers become pairs, a judge labels them, and a reward scores any answers.

Belongs here: rows of a file -> answers as judges read them -> rows with what the judge said. Not here: how a policy
answers, or what a judge says, which are `evaluation/`'s.
"""
