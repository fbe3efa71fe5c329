"""`rlhf lab`: the statements of a policy-gradient lecture, measured."""
