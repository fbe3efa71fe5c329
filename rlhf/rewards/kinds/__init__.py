"""One file a kind of reward, and what single kinds need: user code, JSON over HTTP.

At home here: what scores a response. Not: asking within a deadline, caching and sorting failures, one folder up.
"""
