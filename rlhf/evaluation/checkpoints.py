"""A checkpoint of a PPO run as a policy: the model that the run started from, with the weights as they were then."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from rlhf.config import PPOConfig
from rlhf.config.reading.loader import load_config
from rlhf.errors import CheckpointError, ConfigError
from rlhf.fetch import resolve
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.stage.model import trainable
from rlhf.training.storage.checkpoint import Checkpoint
from rlhf.training.storage.listing import Damaged
from rlhf.training.storage.manifest import verify

_NAME = re.compile(r"step-(\d{6,})")
MASTERS = "masters"
"""The group of tensors with the trained weights in full precision."""
_POLICY = "lm."
"""Begins the names of the policy's weights; the others are those of the value head and the critic."""


def step_of(path: str | Path) -> int | None:
    """Return the step of a checkpoint's directory; None where the path is none."""
    name = _NAME.fullmatch(Path(path).name)
    return int(name[1]) if name and (Path(path) / f"{MASTERS}.safetensors").is_file() else None


def checkpoints_of(run: Path) -> list[Path]:
    """Return the checkpoints of a PPO run, the first step first."""
    found = {step: path for path in (run / "checkpoints").glob("step-*") if (step := step_of(path)) is not None}
    return [found[step] for step in sorted(found)]


def config_of(checkpoint: Path) -> PPOConfig:
    """Return the configuration of the run that wrote a checkpoint.

    Raises:
        ConfigError: there is none, or it is not one of `rlhf ppo`.
    """
    return config_of_run(checkpoint.resolve().parent.parent, checkpoint)


def config_of_run(run: Path, asked: Path) -> PPOConfig:
    """Return the configuration of a PPO run; `asked` begins the error message.

    Raises:
        ConfigError: there is none, or it is not one of `rlhf ppo`.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{asked}: a checkpoint holds only what was trained; the rest is named by {path}, and there is no "
            "such file - leave the checkpoint in its run"
        )
    try:
        return load_config(PPOConfig, path)
    except ConfigError as problem:
        raise ConfigError(
            f"{asked}: only checkpoints of `rlhf ppo` can answer, and {path} is not its configuration: {problem}"
        ) from None


def start_of(path: str) -> tuple[str, dict[str, Any]]:
    """Return where the tokenizer of a policy is, and how its run renders chats: for a checkpoint, those of the start.

    Raises:
        ConfigError: a checkpoint's run has no configuration.
    """
    if step_of(path) is None:
        return path, {}
    section = config_of(Path(path)).model
    return resolve(section.path), section.chat


def load_checkpoint(path: str) -> PreTrainedModel:
    """Return the float32 language model of a checkpoint, an adapter merged.

    Raises:
        CheckpointError: the checkpoint is damaged, or holds other weights than its run trains.
        ConfigError: its run has no configuration, or the model that it started from cannot be loaded.
    """
    place = Path(path)
    config, step = config_of(place), step_of(path)
    assert step is not None
    try:
        verify(place, step)
    except Damaged as reason:
        raise CheckpointError(f"{place}: damaged checkpoint: {reason}; name another one") from None
    masters = Checkpoint(step, place).tensors(MASTERS)
    saved = {name.removeprefix(_POLICY): each for name, each in masters.items() if name.startswith(_POLICY)}
    source = resolve(config.model.path)
    tokenizer = load_tokenizer(source, trust_remote_code=config.model.trust_remote_code, **config.model.chat)
    trained = trainable(config.model, partial(load_causal_lm, seed=config.seed), tokenizer)
    parameters = {name: each for name, each in trained.model.named_parameters() if each.requires_grad}
    shapes = {name: tuple(each.shape) for name, each in saved.items()}
    if shapes != {name: tuple(each.shape) for name, each in parameters.items()}:
        raise CheckpointError(
            f"{place}: holds other weights than {config.model.path} trains with this configuration - restore what the "
            "run started from"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
    if trained.adapter is None:
        return trained.model
    merged: PreTrainedModel = trained.adapter.merge_and_unload()
    return merged
