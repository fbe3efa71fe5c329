"""Whether the hub answers, asked once for a few seconds: its own libraries try again for most of a minute."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants, get_session

SECONDS = 5.0
"""How long the hub has to answer."""


def unreachable(name: str, *, is_cached: Callable[[], bool], what: str) -> str | None:
    """Return why a hub name cannot be loaded where the hub does not answer; None where it may be asked, or for a path.

    Of what the cache holds it says how to load it without waiting.

    Args:
        name: hub name, or a local path.
        is_cached: says whether the cache of the library that loads it holds it.
        what: what stands at a local path, such as "directory".

    Returns:
        A sentence without its end, which says how to go on.
    """
    if Path(name).exists() or constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        return None
    told = f"{name}: no such {what}, and {constants.ENDPOINT} does not answer"
    if not is_cached():
        return told
    print(f"{told}; waiting for it before its cache is read - HF_HUB_OFFLINE=1 reads it at once", file=sys.stderr)
    return None


@functools.cache
def _answers(endpoint: str) -> bool:
    """Whether anything, a proxy or an error included, answers for the hub within `SECONDS`."""
    try:
        get_session().head(endpoint, timeout=SECONDS)
    except Exception:
        return False
    return True
