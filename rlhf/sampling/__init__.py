"""Engines that turn prompts into responses with logprobs."""
