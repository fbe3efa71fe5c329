"""From files, directories and hub names to rows, and from column names to the type of a data set.

At home here: where rows come from. Not: what becomes of a row, one folder up.
"""
