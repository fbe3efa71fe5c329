"""How a forward and backward pass is computed fast: attention, frozen blocks, the vocabulary head, compiled blocks.

Belongs here: fast code, each with a plain version that a test compares it with; and the model parts that it calls.
"""
