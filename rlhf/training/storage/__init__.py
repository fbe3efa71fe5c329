"""What a run leaves on disk, and how it survives a kill: run directory, checkpoints, manifests, fingerprints.

Belongs here: files that appear whole or not at all. Not here: what is in them.
"""
