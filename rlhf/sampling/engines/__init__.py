"""Engines that draw responses: our own decoder, transformers' `generate`, and a server, all as `protocol.py` says.

Belongs here: how an engine gets weights and draws tokens. Not here: who trains the weights, what responses are for.
"""
