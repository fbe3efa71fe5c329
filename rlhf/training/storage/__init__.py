"""What a run leaves on the disk, and how it survives a kill: run directory, checkpoints, manifests, fingerprints.

At home here: files that appear whole or not at all. Not: what is in them.
"""
