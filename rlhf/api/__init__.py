"""The stages from Python: models, data and rewards as objects or names.

Belongs here: turning a user's objects into a stage's inputs. Not here: training, which the stages' own code does.
"""
