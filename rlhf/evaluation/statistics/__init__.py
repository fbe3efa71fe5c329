"""The statistics of comparisons: intervals, length control, rankings, power, and the cost of optimisation.

Belongs here: pure functions on arrays. Not here: models, texts and files.
"""
