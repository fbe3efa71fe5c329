"""Which values are secrets: they are not written into files, fingerprints or messages."""

import re
from urllib.parse import parse_qsl, urlsplit

_NAME = re.compile(
    r"(?:^|_)(?:token|password|passwd|passphrase|secret|api_?key|(?:access|secret|private)_key|credentials?"
    r"|authorization)$",
    re.IGNORECASE,
)
_VOCABULARY = re.compile(r"^(?:pad|eos|bos|unk|sep|cls|mask|stop|image|end|start)_token$")
"""Keys that hold a vocabulary token, not an access token."""
_IN_URL = re.compile(r"^(?:key|sig|signature|auth|authorization|access|code|jwt|bearer)$", re.IGNORECASE)
"""What a query calls a secret, beyond the names of keys."""

REDACTED = "REDACTED"
"""Replaces a secret."""


def holds_secret(key: object) -> bool:
    """Tell by its name whether a key holds a secret: `hub_token`, `X-Api-Key`, but not `max_new_tokens`."""
    return isinstance(key, str) and bool(_NAME.search(key.replace("-", "_"))) and not _VOCABULARY.match(key)


def secret_in_url(url: str) -> str | None:
    """Return which part of a URL holds a secret, such as `api_key`; never the secret; None where none does."""
    try:
        parts = urlsplit(url)
        query = [pair for text in (parts.query, parts.fragment) for pair in parse_qsl(text, keep_blank_values=True)]
    except ValueError:
        return None
    if parts.username is not None or parts.password is not None:
        return "user or password"
    names = (name.replace("-", "_") for name, _ in query)
    return next((name for name in names if holds_secret(name) or _IN_URL.match(name)), None)


def secret_in(value: object) -> str | None:
    """Return which part of a value holds a secret: of a URL, or a key at any depth; None where none does."""
    if isinstance(value, str):
        return secret_in_url(value) if "://" in value else None
    if isinstance(value, dict):
        named = (str(key) for key, held in value.items() if holds_secret(key) and isinstance(held, str))
        return next(named, None) or secret_in([*value.values()])
    if isinstance(value, list | tuple):
        return next((part for part in map(secret_in, value) if part is not None), None)
    return None


def redacted(value: object) -> object:
    """Return a copy of nested lists and mappings in which the text of each secret is replaced."""
    if isinstance(value, dict):
        return {k: REDACTED if holds_secret(k) and isinstance(v, str) else redacted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return value
