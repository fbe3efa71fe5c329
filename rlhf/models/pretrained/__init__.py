"""From a directory or hub name to a model and its tokenizer, and back: loading, adapters, vocabulary, export.

At home here: what is on the disk and what of it is trained. Not: how a pass is computed.
"""
