"""Decision processes small enough to enumerate: J, its gradient, V, Q, A and KL exactly, in float64.

The estimators and losses of `functional/` are held against these numbers, with no sampling in between: what is proven
here is what trains a language model.
"""
