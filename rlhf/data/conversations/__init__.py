"""Conversations: messages as people write them, rendered by a chat template, as token ids with what is learnt.

Belongs here: turns, templates and tools. Not here: plain text, and what becomes of a row that does not fit.
"""
