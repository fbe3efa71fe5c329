"""A model's directory before a library reads it: what it must not hold, and its JSON files, with errors of our own."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from rlhf.errors import ConfigError
from rlhf.models.pretrained.place import check_exists
from rlhf.reachable import unreachable

_KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
"""Keys of config.json that may name code on the hub."""

_CONFIGS = ("config.json", "adapter_config.json", "tokenizer_config.json")
"""Files of which the cache of the hub holds one for each model."""
_PARTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_experts", "num_local_experts")
"""Keys of config.json for how often a part of a model is built, before any weight is read."""
MOST_PARTS = 10_000
"""Far more than any model has; more would keep the loading busy without end."""
LARGEST = 1e30
"""Beyond any setting, and still a float."""
NEUTRAL: dict[str, float] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
}
"""Settings of generation_config.json that change which tokens are drawn, with the values that change nothing."""


def check_directory(path: str) -> None:
    """Refuse a directory that is missing, damaged, or reaches outside, and a hub name for which no hub answers.

    Raises:
        ConfigError: says which file, what was found, and what to do.
    """
    check_exists(path)
    directory = Path(path)
    if not directory.is_dir():
        _check_hub(path)
        return
    config = read_object(directory / "config.json")
    if config.get("quantization_config") is not None:
        raise ConfigError(
            f"{directory / 'config.json'}: quantization_config, and rlhf trains and asks whole weights only - give the "
            "model as it was before quantization"
        )
    for key in _KERNELS:
        if "/" in str(config.get(key) or ""):
            raise ConfigError(
                f"{directory / 'config.json'}: {key} names code on the hub ({str(config[key])[:80]!r}), which is never "
                "run - remove the key"
            )
    _check_parts(directory / "config.json", config)
    check_settings(directory / "generation_config.json")
    for index in sorted(directory.glob("*.index.json")):
        _check_index(index)
    _check_adapter(directory)


def _check_hub(name: str) -> None:
    """Refuse a hub name at once where the hub does not answer and its cache does not hold it."""

    def is_cached() -> bool:
        return any(isinstance(try_to_load_from_cache(name, config), str) for config in _CONFIGS)

    why = unreachable(name, is_cached=is_cached, what="directory")
    if why is not None:
        raise ConfigError(f"{why} - give a local directory or fetch:NAME")


def check_settings(file: Path) -> None:
    """Refuse a generation_config.json whose values are of other types than ours, where we read them.

    Raises:
        ConfigError: names the key.
    """
    settings = read_object(file)
    for key in NEUTRAL:
        if not (settings.get(key) is None or _is_number(settings[key])):
            raise ConfigError(f"{file}: {key} must be a number, found {str(settings[key])[:80]!r}")
    ends = settings.get("eos_token_id")
    if ends is not None and not all(map(_is_id, ends if isinstance(ends, list) else [ends])):
        raise ConfigError(f"{file}: eos_token_id must be a token id or a list of them, found {str(ends)[:80]!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def read_object(file: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds, empty where there is no file.

    Raises:
        ConfigError: it is no JSON in UTF-8, or holds something else.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise ConfigError(f"{file}: nested too deeply - restore it from where the model came from") from None
    except ValueError as error:
        raise ConfigError(f"{file}: is no JSON ({error}) - restore it from where the model came from") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def _check_parts(file: Path, config: dict[str, Any]) -> None:
    for section in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key in _PARTS:
            number = section.get(key)
            if isinstance(number, int | float) and number > MOST_PARTS:
                raise ConfigError(f"{file}: {key} is {str(number)[:40]}, at most {MOST_PARTS} - it is damaged")


def _check_index(index: Path) -> None:
    """Refuse an index of sharded weights that names anything but files beside it."""
    listed = read_object(index).get("weight_map", {})
    names = listed.values() if isinstance(listed, dict) else [listed]
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ConfigError(
                f"{index}: weight_map must name files in the same directory, found {str(name)[:80]!r} - it comes "
                "from somewhere you should not trust, or is damaged"
            )


def _check_adapter(directory: Path) -> None:
    pickled = directory / "adapter_model.bin"
    if pickled.is_file() and not (directory / "adapter_model.safetensors").is_file():
        raise ConfigError(
            f"{pickled}: a pickle file, and rlhf reads safetensors only - if you trust where it comes from, load the "
            "adapter with peft and save it again (save_pretrained writes adapter_model.safetensors)"
        )
