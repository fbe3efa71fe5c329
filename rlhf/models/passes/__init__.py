"""How a forward and backward pass is computed fast: attention, frozen blocks, the vocabulary head, compiled blocks.

At home here: fast ways, each with a plain one that a test holds it to; and the parts of a model that they ask for.
"""
