"""From files, directories and hub names to rows, and from column names to the type of a data set.

Belongs here: where rows come from. Not here: what becomes of a row, which is one folder up.
"""
