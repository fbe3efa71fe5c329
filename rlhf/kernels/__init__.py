"""Compiled code for a CPU: the steps between matrix products, in decoding and in passes forward and backward."""
