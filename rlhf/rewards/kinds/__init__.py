"""One file per kind of reward, and what some kinds need: user code, JSON over HTTP.

Belongs here: what scores a response. Not here: deadlines, caching and failure policies, one folder up.
"""
