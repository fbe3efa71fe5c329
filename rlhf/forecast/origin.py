"""Where the model of a stage comes from, also before it is made, and its sizes without its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf.config import RunConfig
from rlhf.config.run import STAGES
from rlhf.config.shared import ModelSection
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.pretrained.adapters import base_of, is_adapter
from rlhf.models.pretrained.depth import keep_first_blocks
from rlhf.models.pretrained.loading import scalar_head
from rlhf.models.pretrained.quantization import quantize
from rlhf.models.pretrained.quiet import quiet_transformers
from rlhf.models.pretrained.setup import make_trainable
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.models.pretrained.vocabulary import fit_vocabulary

RESULTS = {"sft": "policy", "reward_model": "reward_model", "ppo": "policy"}
"""The directory of each stage's model, in its output directory."""


class Unknown(Exception):
    """What keeps a forecast from being made, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A model whose sizes and tokenizer are known, and what the stages of the recipe make of it."""

    source: str
    """A local directory with config.json (or an adapter) and tokenizer."""
    num_layers: int | None = None
    """Blocks that a reward model keeps; None for all."""
    lora: Mapping[str, Any] | None = None
    """The adapter that `lora: continue` goes on with."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the model that it comes from; stages hand it on."""
        return load_tokenizer(self.source)


def origin_of(path: str, recipe: RunConfig, before: str) -> Origin:
    """Return where a model comes from, through the stages of a recipe that run earlier than `before`.

    Raises:
        Unknown: nothing of it is on this machine.
        RlhfError: it cannot be fetched.
    """
    for stage in reversed(STAGES[: STAGES.index(before)]):
        section = getattr(recipe, stage)
        if section is not None and Path(section.output_dir) / RESULTS[stage] == Path(path):
            return _made(section.model, origin_of(section.model.path, recipe, stage))
    source = _local(resolve(path))
    return Origin(source=source, lora=_saved_adapter(source) if is_adapter(source) else None)


def sizes(origin: Origin, kind: Any) -> PreTrainedModel:
    """Return a frozen model without weights: its parameters are on the meta device, and have a shape alone.

    Args:
        origin: of the model.
        kind: the class of transformers that loads it.

    Raises:
        Unknown: the model runs code of its own, or transformers does not know it.
    """
    source = base_of(origin.source) if is_adapter(origin.source) else origin.source
    options = {"num_labels": 1} if kind is AutoModelForSequenceClassification else {}
    try:
        with quiet_transformers(), torch.device("meta"):
            config = AutoConfig.from_pretrained(_local(source), trust_remote_code=False, **options)
            model: PreTrainedModel = kind.from_config(config, dtype=torch.float32, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as problem:
        raise Unknown(f"the sizes of {source} cannot be read ({type(problem).__name__})") from None
    if origin.num_layers is not None:
        keep_first_blocks(model, origin.num_layers)
    return model.requires_grad_(False)


def language_sizes(origin: Origin) -> PreTrainedModel:
    """Return a language model without weights."""
    return sizes(origin, AutoModelForCausalLM)


def classifier_sizes(origin: Origin) -> tuple[PreTrainedModel, list[nn.Module]]:
    """Return a classifier without weights, and its linear head where it has one."""
    model = sizes(origin, AutoModelForSequenceClassification)
    try:
        return model, [scalar_head(model)]
    except ConfigError:  # an encoder, whose head is small beside it
        return model, []


def encoder_sizes(origin: Origin) -> PreTrainedModel:
    """Return a model without head and weights."""
    return sizes(origin, AutoModel)


def tuned_sizes(section: ModelSection, origin: Origin, kind: Any) -> PreTrainedModel:
    """Return a stage's model without weights, with `requires_grad` as the stage will set it.

    Raises:
        Unknown: as `sizes`, or there is no adapter to go on with.
    """
    if section.trust_remote_code:
        raise Unknown(f"{section.path} runs code of its own")
    depth = getattr(section, "num_layers", None)
    model = sizes(origin if depth is None else replace(origin, num_layers=depth), kind).requires_grad_(True)
    fit_vocabulary(model, origin.tokenizer, origin.source)
    lora = section.new_lora
    if section.lora == "continue":
        if origin.lora is None:
            raise Unknown(f"{section.path} is no adapter")
        lora = dict(origin.lora)
    if section.quantize is not None:
        quantize(model, section.quantize)
    with torch.device("meta"):
        make_trainable(model, origin.source, lora=lora, trainable_layers=section.trainable_layers)
    return model


def _made(section: ModelSection, earlier: Origin) -> Origin:
    """Return what a stage makes of a model."""
    lora = earlier.lora if section.lora == "continue" else section.new_lora
    return replace(earlier, num_layers=getattr(section, "num_layers", None) or earlier.num_layers, lora=lora)


def _saved_adapter(directory: str) -> Mapping[str, Any]:
    from peft import PeftConfig

    saved = PeftConfig.from_pretrained(directory)
    names = {"r": "r", "alpha": "lora_alpha", "target_modules": "target_modules"}
    return {"dropout": 0.0, **{ours: getattr(saved, theirs, None) for ours, theirs in names.items()}}


def _local(source: str) -> str:
    """Return a directory on this machine: a hub name's is in the cache of the hub, or nowhere."""
    if Path(source).is_dir():
        return source
    try:
        found = try_to_load_from_cache(source, "config.json")
    except ValueError:  # not a name that a hub could have
        found = None
    if not isinstance(found, str):
        raise Unknown(f"{source} is not on this machine yet")
    return str(Path(found).parent)
