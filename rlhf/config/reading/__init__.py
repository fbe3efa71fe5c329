"""From YAML text and overrides to a checked configuration, with every error at once.

Belongs here: reading. Not here: which keys there are; the schemas are one folder up.
"""
