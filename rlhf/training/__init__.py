"""What the stages share below their mathematics: the loop, master weights and AdamW, processes, random numbers.

Belongs here: how training runs, whatever is trained. `storage/` writes files, `telemetry/` shows figures.
"""
