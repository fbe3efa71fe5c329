"""The stages from Python: models, data and rewards as objects or names.

At home here: turning what a user gives into what a stage takes. Not: training, for which the YAML stages run the same
code.
"""
