"""Stage: policies compared on the same held-out prompts by judges that training never saw."""
