"""Decision processes small enough to enumerate: J, its gradient, V, Q, A and KL exactly, in float64.

Tests compare the estimators and losses of `functional/` with these numbers, without any sampling: the code they prove
correct is the code that trains a language model.
"""
