"""Verb: an adapter and its base become one model directory."""

import shutil
from pathlib import Path

from rlhf.errors import CheckpointError, ConfigError
from rlhf.fetch import resolve
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.models.pretrained.setup import Trainable, save_model
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.models.pretrained.vocabulary import fit_vocabulary
from rlhf.ppo.run.assembly import VALUE_HEAD
from rlhf.training.storage.atomic import atomic_directory


def merge(adapter: str, output: Path) -> Path:
    """Add a saved adapter to its base, and save the sum as an ordinary model directory in float32.

    Args:
        adapter: an adapter directory, as SFT or PPO with `model.lora` saves it, or a hub name.
        output: the directory to write; it must not exist, or be empty.

    Returns:
        The directory, for `AutoModelForCausalLM`.

    Raises:
        ConfigError: `adapter` is no adapter directory, or its base cannot be loaded.
        CheckpointError: `output` holds files, or cannot be written.
    """
    source = resolve(adapter)
    if Path(source).is_dir() and not (Path(source) / "adapter_config.json").is_file():
        raise ConfigError(f"merge: {source}: holds no adapter_config.json, so there is nothing to merge")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CheckpointError(f"merge: {output}: exists already - choose another directory")
    tokenizer = load_tokenizer(source)
    model = load_causal_lm(source)
    fit_vocabulary(model, tokenizer, source)
    with atomic_directory(output.absolute()) as temporary:
        save_model(Trainable(model=model, adapter=None, source=source), tokenizer, temporary)
        if (Path(source) / VALUE_HEAD).is_file():
            shutil.copy(Path(source) / VALUE_HEAD, temporary / VALUE_HEAD)
    return output
