"""What to say when no model can be loaded: what was found, and advice that works when it is followed."""

from pathlib import Path
from typing import Any

from huggingface_hub import constants
from transformers import AutoModelForSequenceClassification

from rlhf.errors import ConfigError

LOADING_ERRORS = (Exception,)
"""What transformers, peft and tokenizers raise about a directory that they cannot load, whichever file is wrong: any
type, tokenizers even Exception itself. Only calls of a library stand inside."""


def offline(path: str) -> str | None:
    """Return why a hub name cannot be loaded where the hub may not be asked; None for a directory, or when it may."""
    if Path(path).exists() or not constants.HF_HUB_OFFLINE:
        return None
    return "no such directory, HF_HUB_OFFLINE is set, and the hub's cache does not hold it"


def unloadable(kind: Any, path: str, problem: Exception) -> ConfigError:
    """Return the refusal of what transformers or peft could not load.

    Args:
        kind: the class that was asked, such as AutoModelForCausalLM.
        path: directory or hub name.
        problem: what it raised.
    """
    if _holds_pickle_alone(path):
        return _pickled(kind, path)
    if kind is AutoModelForSequenceClassification and "Unrecognized configuration class" in str(problem):
        return unclassifiable(path)
    line = offline(path) or [*str(problem).strip().splitlines(), type(problem).__name__][0][:200]
    return ConfigError(f"{path}: no model could be loaded ({line}) - give a local directory, fetch:NAME, or a hub name")


def unclassifiable(path: str) -> ConfigError:
    """Return the refusal of a language model for which transformers has no class with a scalar head."""
    return ConfigError(
        f"{path}: transformers has no sequence classification class for this architecture, so it cannot carry a scalar "
        "head; it can be a policy - take another base for the reward model, such as a Llama or Qwen, which reads text "
        "with its own tokenizer, and critic: shared"
    )


def _holds_pickle_alone(path: str) -> bool:
    directory = Path(path)
    return any(directory.glob("pytorch_model*.bin*")) and not any(directory.glob("*.safetensors"))


def _pickled(kind: Any, path: str) -> ConfigError:
    """Return the refusal of weights in pickle files, with a command that converts them."""
    target = f"{path.rstrip('/')}-safetensors"
    command = (
        f"from transformers import AutoTokenizer as T, {kind.__name__} as M; "
        f"M.from_pretrained({path!r}, use_safetensors=False).save_pretrained({target!r}); "
        f"T.from_pretrained({path!r}).save_pretrained({target!r})"
    )
    return ConfigError(
        f"{path}: its weights are in pytorch_model.bin alone, a pickle file, and rlhf reads safetensors only - if you "
        f'trust where it comes from, convert it with: python -c "{command}" and give {target}'
    )
