"""What one side of a comparison does, timed, in a process of its own.

At home here: scripts that `sides.py` starts, ours and the peers'. Not: what a person starts; rlhf, in a peer's worker.
"""
