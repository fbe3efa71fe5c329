"""Whether a model's path is a directory that is missing, and which stage would write it."""

from pathlib import Path

from rlhf.errors import ConfigError

WRITERS = {
    ("sft", "policy"): "rlhf sft",
    ("ppo", "policy"): "rlhf ppo",
    ("reward_model", "reward_model"): "rlhf reward-model",
}
"""The last two parts of a result's path in a recipe, and the verb that writes it."""


def check_exists(path: str) -> None:
    """Refuse a local path at which nothing is; a name of the form OWNER/NAME may be on the hub.

    Raises:
        ConfigError: names the verb that would write it, where that is one of ours.
    """
    parts = Path(path).parts
    is_local = path.startswith((".", "~", "/")) or len(parts) > 2
    if not is_local or Path(path).exists():
        return
    verb = next((verb for ending, verb in WRITERS.items() if parts[-2:] == ending), None)
    fix = f"`{verb}` writes it: run that stage first" if verb else "give a model directory, fetch:NAME or a hub name"
    raise ConfigError(f"{path}: there is no such directory - {fix}")
