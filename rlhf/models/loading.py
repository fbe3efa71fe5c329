"""Loading models with clear refusals, adapters, and the choice of trained weights."""

from pathlib import Path
from typing import Any

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlhf.errors import ConfigError
from rlhf.models.anatomy import blocks, final_norm, switch_off_dropout
from rlhf.models.quiet import quiet_transformers


def load_causal_lm(path: str, *, random_init: bool = False, trust_remote_code: bool = False, seed: int = 0) -> PreTrainedModel:
    """Load a causal language model in float32 on the CPU, without dropout.

    An adapter directory (peft) is loaded onto its base model and merged: what is trained starts from the sum.

    Args:
        path: directory or hub name.
        random_init: take only config.json and draw the weights from `seed`.

    Raises:
        ConfigError: nothing can be loaded from `path`.
    """
    if (Path(path) / "adapter_config.json").is_file():
        adapted = AutoPeftModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=trust_remote_code)
        return switch_off_dropout(adapted.merge_and_unload())
    return switch_off_dropout(_load(AutoModelForCausalLM, path, random_init, trust_remote_code, seed))


def load_scalar_lm(
    path: str, *, random_init: bool = False, trust_remote_code: bool = False, seed: int = 0, new_head: bool
) -> PreTrainedModel:
    """Load a sequence classifier with one label in float32.

    Args:
        new_head: draw the head from N(0, 1 / sqrt(H + 1)) (Stiennon et al. 2020, arXiv:2009.01325, code), for a model
            that has none; otherwise the directory must hold a head of one label.

    Raises:
        ConfigError: nothing can be loaded, or the classifier has another number of labels.
    """
    generator = torch.Generator().manual_seed(seed)
    if new_head:
        model = _load(AutoModelForSequenceClassification, path, random_init, trust_remote_code, seed, num_labels=1)
        head = scalar_head(model)
        with torch.no_grad():
            head.weight.normal_(0.0, (head.in_features + 1) ** -0.5, generator=generator)
            if head.bias is not None:
                head.bias.zero_()
        return switch_off_dropout(model)
    model = _load(AutoModelForSequenceClassification, path, random_init, trust_remote_code, seed)
    if model.config.num_labels != 1:
        raise ConfigError(f"{path}: a reward model needs 1 label, found {model.config.num_labels} - train one with `rlhf reward-model`")
    return switch_off_dropout(model)


def scalar_head(model: PreTrainedModel) -> nn.Linear:
    """Return the linear head of a sequence classifier."""
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, nn.Linear):
            return head
    raise ConfigError(f"{type(model).__name__} has no linear head named score or classifier - it cannot serve as reward model")


def add_lora(model: PreTrainedModel, *, r: int, alpha: float, dropout: float, target_modules: str | list[str]) -> PeftModel:
    """Freeze the model and put low-rank adapters of rank `r` on its linear layers."""
    classifier = hasattr(model, "score")
    adapters = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft annotates int, and divides by r as a float
        lora_dropout=dropout,
        target_modules=target_modules,
        task_type=TaskType.SEQ_CLS if classifier else TaskType.CAUSAL_LM,
    )
    return get_peft_model(model, adapters)  # type: ignore[return-value]


def freeze_all_but_top(model: PreTrainedModel, num_layers: int) -> None:
    """Train only the last `num_layers` blocks, the final norm and a scalar head; the backward pass stops below them.

    Raises:
        ConfigError: the model has fewer blocks.
    """
    stack = blocks(model)
    if num_layers > len(stack):
        raise ConfigError(f"model.trainable_layers: {num_layers}, but the model has {len(stack)} blocks - use at most that")
    model.requires_grad_(False)
    for part in [*stack[-num_layers:], final_norm(model), getattr(model, "score", None)]:
        if part is not None:
            part.requires_grad_(True)


def frozen_in(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Freeze a model and convert its parameters; buffers, such as rotary frequencies, stay as they are."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(dtype)
    return model.eval()


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Refuse a tokenizer with more ids than the model has embeddings.

    Raises:
        ConfigError: with both sizes.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ConfigError(f"{path}: the tokenizer has {len(tokenizer)} ids, the model {rows} embeddings - they do not belong together")


def context_length(model: PreTrainedModel) -> int | None:
    """Return the longest sequence in tokens that the model has positions for, None when it does not say."""
    for name in ("max_position_embeddings", "n_positions"):
        length = getattr(model.config.get_text_config(), name, None)
        if length is not None:
            return int(length)
    return None


def _load(kind: Any, path: str, random_init: bool, trust_remote_code: bool, seed: int, **options: Any) -> PreTrainedModel:
    try:
        with quiet_transformers():
            if random_init:
                return _drawn(kind, path, trust_remote_code, seed, **options)
            return kind.from_pretrained(  # type: ignore[no-any-return]
                path, dtype=torch.float32, use_safetensors=True, trust_remote_code=trust_remote_code, **options
            )
    except (OSError, ValueError) as problem:
        line = str(problem).strip().splitlines()[0][:200]
        raise ConfigError(
            f"{path}: no model could be loaded ({line}) - give a local directory, fetch:NAME, or a hub name"
        ) from None


def _drawn(kind: Any, path: str, trust_remote_code: bool, seed: int, **options: Any) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_config(config, trust_remote_code=trust_remote_code, dtype=torch.float32)  # type: ignore[no-any-return]
