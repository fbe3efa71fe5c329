"""Loading models, with clear errors."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import check_logits, switch_off_dropout, trunk
from rlhf.models.passes.quantized import Kind
from rlhf.models.passes.rotary import recall_factors, steady_length, why_steady
from rlhf.models.pretrained.adapters import base_of, is_adapter, trained_head
from rlhf.models.pretrained.directory import check_directory
from rlhf.models.pretrained.quantization import take_over, while_loading
from rlhf.models.pretrained.quiet import quiet_transformers
from rlhf.models.pretrained.refusals import LOADING_ERRORS, unclassifiable, unloadable
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.models.pretrained.vocabulary import fit_vocabulary

if TYPE_CHECKING:
    from peft import PeftModel


def load_causal_lm(
    path: str,
    *,
    random_init: bool = False,
    trust_remote_code: bool = False,
    seed: int = 0,
    quantize: Kind | None = None,
) -> PreTrainedModel:
    """Load a causal language model in float32 on the CPU, in evaluation mode and without dropout.

    An adapter directory (peft) is loaded onto its base model and merged: training starts from the merged weights.

    Args:
        path: directory or hub name.
        random_init: take only config.json and draw the weights from `seed`.
        trust_remote_code: run the code that comes with the model.
        seed: of `random_init`.
        quantize: how to hold the linear layers, each quantized as it is read; an adapter's sum comes whole.

    Raises:
        ConfigError: nothing can be loaded from `path`.
    """
    if is_adapter(path):
        model = _merged(path, trust_remote_code)
    elif random_init:
        model = _drawn(AutoModelForCausalLM, path, trust_remote_code, seed)
    else:
        model = _loaded(AutoModelForCausalLM, path, trust_remote_code, **while_loading(quantize))
    check_logits(switch_off_dropout(model), path)
    return model


def load_adapter(
    path: str, *, trust_remote_code: bool = False, is_trainable: bool = False, quantize: Kind | None = None
) -> "PeftModel":
    """Load an adapter of a causal language model on its base, both in float32; the base is frozen, perhaps quantized.

    Raises:
        ConfigError: the adapter, or its base, cannot be loaded.
    """
    from peft import PeftModel

    check_directory(path)
    model = switch_off_dropout(
        _loaded(AutoModelForCausalLM, base_of(path), trust_remote_code, **while_loading(quantize))
    )
    if (Path(path) / "tokenizer_config.json").is_file():
        fit_vocabulary(model, load_tokenizer(path, trust_remote_code=trust_remote_code), path)
    try:
        with quiet_transformers():
            return PeftModel.from_pretrained(model, path, is_trainable=is_trainable)
    except LOADING_ERRORS as problem:
        raise unloadable(PeftModel, path, problem) from None


def load_scalar_lm(
    path: str,
    *,
    random_init: bool = False,
    trust_remote_code: bool = False,
    seed: int = 0,
    new_head: bool,
    quantize: Kind | None = None,
) -> PreTrainedModel:
    """Load a sequence classifier with one label in float32, in evaluation mode and without dropout.

    Args:
        path: directory or hub name; with `new_head` also an adapter directory of a language model.
        random_init: take only config.json and draw the weights from `seed`.
        trust_remote_code: run the code that comes with the model.
        seed: of a new head, and of `random_init`.
        new_head: draw the head from N(0, 1 / sqrt(H + 1)) (Stiennon et al. 2020, arXiv:2009.01325, code), for a model
            that has none; otherwise the directory must hold a head of one label.
        quantize: as for `load_causal_lm`; the head stays as it is.

    Raises:
        ConfigError: nothing can be loaded, or the classifier has another number of labels.
    """
    kind = AutoModelForSequenceClassification
    if new_head and is_adapter(path):
        model = _classifier_of(_merged(path, trust_remote_code), trust_remote_code)
    elif random_init:
        model = _drawn(kind, path, trust_remote_code, seed, num_labels=1)
    elif new_head:
        model = _loaded(kind, path, trust_remote_code, may_lack="score.", num_labels=1, **while_loading(quantize))
    else:
        _require_one_label(path, trust_remote_code)
        model = _loaded(kind, path, trust_remote_code, **while_loading(quantize))
        recall_factors(model)
    if new_head:
        _draw_head(scalar_head(model), seed)
    scalar_head(model)
    return switch_off_dropout(model)


def load_encoder(path: str) -> PreTrainedModel:
    """Load a model without any head, as a sentence encoder is saved, in float32 and without dropout.

    Raises:
        ConfigError: nothing can be loaded from `path`.
    """
    return switch_off_dropout(_loaded(AutoModel, path, trust_remote_code=False, may_lack="pooler."))


def with_new_head(lm: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Return a classifier with one label on a float32 copy of a language model's trunk, as `load_scalar_lm` makes it.

    Raises:
        ConfigError: the kind of model has no linear head.
    """
    model = _classifier_of(lm, trust_remote_code=False)
    _draw_head(scalar_head(model), seed)
    return switch_off_dropout(model)


def scalar_head(model: PreTrainedModel) -> nn.Linear:
    """Return the linear head of a sequence classifier, the trained one where an adapter has a copy.

    Raises:
        ConfigError: there is none, as in encoders, whose attention sees padding and which pool differently.
    """
    head = trained_head(getattr(model, "score", nn.Identity()))
    if isinstance(head, nn.Linear):
        return head
    raise ConfigError(
        f"{type(model).__name__} has no linear head named score - only a causal language model can be a reward model"
    )


def frozen_in(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Freeze a model and convert its parameters, but not its buffers (rotary frequencies) or a scalar head."""
    head = getattr(model, "score", None)
    kept = set() if head is None else {id(parameter) for parameter in head.parameters()}
    for parameter in model.requires_grad_(False).parameters():
        if id(parameter) not in kept:
            parameter.data = parameter.data.to(dtype)
    model.eval()
    return model


def context_length(model: PreTrainedModel) -> int | None:
    """Return the longest sequence in tokens that the model has positions for, None when it does not say.

    Positions count as far as they depend on nothing but their number: see `choose_factors`.
    """
    named = [getattr(model.config.get_text_config(), name, None) for name in ("max_position_embeddings", "n_positions")]
    positions = next((int(length) for length in named if length is not None), None)
    known = [length for length in (positions, steady_length(model)) if length is not None]
    return min(known, default=None)


def limit_of(model: PreTrainedModel) -> str:
    """Return `context_length` in words, for a refusal: "64 positions", and why if there would be more."""
    limit = context_length(model)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    reason = f" ({why_steady(model)})" if positions is not None and limit is not None and limit < positions else ""
    return f"{limit} positions{reason}"


def check_positions(
    model: PreTrainedModel, source: str, longest: int, max_new_tokens: int, *, key: str, fix: str, where: str = ""
) -> None:
    """Refuse prompts that leave no room for a whole response.

    Args:
        model: reads prompt and response.
        source: where it was loaded from.
        longest: tokens of the longest prompt.
        max_new_tokens: of a response.
        key: the setting that holds `max_new_tokens`.
        fix: what the user can do.
        where: the beginning of the message.

    Raises:
        ConfigError: the model has fewer positions than prompt and response have tokens.
    """
    limit = context_length(model)
    if limit is not None and longest + max_new_tokens > limit:
        raise ConfigError(
            f"{where}longest prompt ({longest} tokens) + {key} ({max_new_tokens}) exceed the {limit_of(model)} of "
            f"{source} - {fix}"
        )


def _loaded(
    kind: Any, path: str, trust_remote_code: bool, *, may_lack: str | None = None, **options: Any
) -> PreTrainedModel:
    """Load weights, and refuse files that lack some: transformers would silently draw those at random."""
    check_directory(path)
    try:
        # transformers draws missing weights from the global generator, whose state belongs to the run.
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            model, report = kind.from_pretrained(
                path,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **options,
            )
    except LOADING_ERRORS as problem:
        raise unloadable(kind, path, problem) from None
    lacking = sorted(name for name in report["missing_keys"] if may_lack is None or not name.startswith(may_lack))
    if lacking:
        raise ConfigError(
            f"{path}: the files lack {len(lacking)} weights of {type(model).__name__}, such as {lacking[0]}"
        )
    take_over(model)
    # Memory-mapped weights are unaligned: their products may round differently from those of a copy (the reference).
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    return model  # type: ignore[no-any-return]


def _drawn(kind: Any, path: str, trust_remote_code: bool, seed: int, **options: Any) -> PreTrainedModel:
    check_directory(path)
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code, **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = kind.from_config(config, trust_remote_code=trust_remote_code, dtype=torch.float32)
    except LOADING_ERRORS as problem:
        raise unloadable(kind, path, problem) from None
    return model  # type: ignore[no-any-return]


def _merged(path: str, trust_remote_code: bool) -> PreTrainedModel:
    """Load an adapter of a causal language model and its base, and merge them."""
    from peft import PeftModel

    adapter = load_adapter(path, trust_remote_code=trust_remote_code)
    try:
        merged: PreTrainedModel = adapter.merge_and_unload()
    except LOADING_ERRORS as problem:  # kinds of adapters that cannot be merged
        raise unloadable(PeftModel, path, problem) from None
    return merged.requires_grad_(True)  # peft freezes the base


def _classifier_of(lm: PreTrainedModel, trust_remote_code: bool) -> PreTrainedModel:
    """Return a classifier with one label on the trunk of a language model."""
    config = copy.deepcopy(lm.config)
    config.num_labels = 1
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING and "auto_map" not in vars(config):
        raise unclassifiable(getattr(lm, "name_or_path", "") or type(lm).__name__)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForSequenceClassification.from_config(
            config, trust_remote_code=trust_remote_code, dtype=torch.float32
        )
    trunk(model).load_state_dict(trunk(lm).state_dict())
    return model  # type: ignore[no-any-return]


def _require_one_label(path: str, trust_remote_code: bool) -> None:
    if is_adapter(path):
        raise ConfigError(f"{path}: a reward model must be a whole model, found an adapter - merge it first")
    check_directory(path)
    try:
        labels = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code).num_labels
    except LOADING_ERRORS as problem:
        raise unloadable(AutoModelForSequenceClassification, path, problem) from None
    if labels != 1:
        raise ConfigError(f"{path}: a reward model needs 1 label, found {labels} - train one with `rlhf reward-model`")


def _draw_head(head: nn.Linear, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.normal_(0.0, (head.in_features + 1) ** -0.5, generator=generator)
        if head.bias is not None:
            head.bias.zero_()
