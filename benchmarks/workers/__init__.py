"""What one side of a comparison does, timed, in its own process.

Belongs here: scripts that `sides.py` starts, ours and the peers'. Not here: what users start; rlhf in a peer's worker.
"""
