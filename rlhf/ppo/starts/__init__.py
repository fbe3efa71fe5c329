"""Where episodes begin: at a prompt, or inside a demonstration (a reset).

Belongs here: the distribution of start states and what it needs. Not here: what happens after an episode has begun.
"""
