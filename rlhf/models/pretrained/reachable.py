"""Whether the hub answers, asked once for a few seconds: its own library tries again for most of a minute."""

import functools
import sys
from pathlib import Path

from huggingface_hub import constants, get_session, try_to_load_from_cache

from rlhf.errors import ConfigError

SECONDS = 5.0
"""How long the hub has to answer."""
_CONFIGS = ("config.json", "adapter_config.json", "tokenizer_config.json")


def check_reachable(path: str) -> None:
    """Refuse a hub name at once where the hub does not answer and its cache does not hold it; a directory passes.

    Of what the cache holds it says how to load it without waiting.

    Raises:
        ConfigError: the hub cannot be reached.
    """
    if Path(path).exists() or constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        return
    told = f"{path}: no such directory, and {constants.ENDPOINT} does not answer"
    if not any(isinstance(try_to_load_from_cache(path, name), str) for name in _CONFIGS):
        raise ConfigError(f"{told} - give a local directory or fetch:NAME")
    print(f"{told}; waiting for it before its cache is read - HF_HUB_OFFLINE=1 reads it at once", file=sys.stderr)


@functools.cache
def _answers(endpoint: str) -> bool:
    """Whether anything, a proxy or an error included, answers for the hub within `SECONDS`."""
    try:
        get_session().head(endpoint, timeout=SECONDS)
    except Exception:
        return False
    return True
