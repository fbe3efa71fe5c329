"""The stages from Python: models, data and rewards as objects or names.

Belongs here: turning what a user gives into what a stage takes. Not here: training, which is the stages' own code.
"""
