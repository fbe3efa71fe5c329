"""A reward as a server: `rlhf serve-reward`."""

import importlib
import importlib.util

from rlhf.errors import ConfigError
from rlhf.serving.options import ServingOptions

_NEEDED = ("fastapi", "uvicorn")


def serve(options: ServingOptions) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Raises:
        ConfigError: a library is missing, the address is unavailable, or the reward cannot be loaded.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"serve-reward: {', '.join(missing)} not installed - pip install 'rlhf-ppo[serve]'")
    importlib.import_module("rlhf.serving.server").run(options)
