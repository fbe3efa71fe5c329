"""What the stages share below their mathematics: the loop, master weights and AdamW, processes, random numbers.

At home here: how training runs, whatever is trained. Files are written in `storage/`, figures shown in `telemetry/`.
"""
