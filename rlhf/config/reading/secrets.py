"""Which values are secrets: they are not written into files, fingerprints or messages."""

import re

_NAME = re.compile(r"(?:^|_)(?:token|password|passwd|secret|api_?key|access_key|credentials?)$", re.IGNORECASE)
_VOCABULARY = re.compile(r"^(?:pad|eos|bos|unk|sep|cls|mask|stop|image|end|start)_token$")
"""Keys that hold a vocabulary token, not an access token."""

REDACTED = "REDACTED"
"""Replaces a secret."""


def holds_secret(key: object) -> bool:
    """Tell by its name whether a key holds a secret: `hub_token`, `api_key`, but not `max_new_tokens`."""
    return isinstance(key, str) and bool(_NAME.search(key)) and not _VOCABULARY.match(key)


def redacted(value: object) -> object:
    """Return a copy of nested lists and mappings in which the text of each secret is replaced."""
    if isinstance(value, dict):
        return {k: REDACTED if holds_secret(k) and isinstance(v, str) else redacted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return value
