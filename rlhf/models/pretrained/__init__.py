"""From a directory or hub name to a model and its tokenizer, and back: loading, adapters, vocabulary, export.

Belongs here: what is on disk, and which weights are trained. Not here: how a pass is computed.
"""
