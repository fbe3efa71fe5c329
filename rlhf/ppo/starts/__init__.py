"""Where episodes begin: at a prompt, or inside a demonstration (a reset).

At home here: the distribution of start states and what it needs. Not: what happens after an episode has begun.
"""
