"""From YAML text and overrides to a checked configuration, with every error at once.

At home here: reading. Not: which keys there are; the schemas stand one folder up.
"""
