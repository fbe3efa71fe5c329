"""Models and tokenizers passed from Python, as objects or by name, prepared for a run."""

import copy
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import RewardSettings
from rlhf.config.shared import ChatSection, TuningSection
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.passes.anatomy import check_logits, switch_off_dropout
from rlhf.models.passes.fused import speed_up
from rlhf.models.pretrained.adapted import has_adapter_layers, is_adapted
from rlhf.models.pretrained.chat_template import use_chat_template
from rlhf.models.pretrained.loading import load_causal_lm, load_scalar_lm, scalar_head, with_new_head
from rlhf.models.pretrained.quantization import check_whole
from rlhf.models.pretrained.setup import Trainable
from rlhf.models.pretrained.tokenizer import Language, all_eos_ids, eos_ids, load_tokenizer, with_pad
from rlhf.models.pretrained.vocabulary import check_tokens, fit_vocabulary
from rlhf.models.reference import load_reference, made_frozen
from rlhf.stage.model import going_on, tuned
from rlhf.training.storage.fingerprint import content_digest

if TYPE_CHECKING:
    from peft import PeftModel

    Model = PreTrainedModel | PeftModel | str
else:
    Model = PreTrainedModel | torch.nn.Module | str  # peft is imported where somebody has an adapter
"""A loaded model, or the directory, `fetch:NAME` or hub name of one."""


GivenTokenizer = PreTrainedTokenizerBase | str | Path | None
"""A tokenizer, or the name of one; None loads the one saved with the model."""


def check_tokenizer(tokenizer: GivenTokenizer, models: Iterable[object]) -> None:
    """Refuse a tokenizer where every model is given by name: each then comes with its own.

    Raises:
        ConfigError: says so.
    """
    if tokenizer is not None and all(isinstance(model, str) for model in models):
        raise ConfigError(
            "tokenizer: a policy given by name comes with its own, so this one has no effect - leave it out, or load "
            "the model and pass it"
        )


def name_or_model(given: Any) -> Any:
    """Return a path as a string, and anything else as it is."""
    return str(given) if isinstance(given, Path) else given


def check_kind(role: str, given: object) -> None:
    """Refuse what is not a transformers model, such as TRL's models with a value head.

    Raises:
        ConfigError: says what was found.
    """
    if not (isinstance(given, PreTrainedModel | str) or is_adapted(given)):
        raise ConfigError(
            f"{role}: expected a causal language model of transformers, one with a peft adapter, or a name, found "
            f"{type(given).__name__}"
        )


def given_language(tokenizer: GivenTokenizer, model: Model, section: ChatSection) -> Language:
    """Return a model's tokenizer, its pad token different from EOS, and the ids that end a response.

    `section` names a chat template to use instead of its own, or variables of it.

    Raises:
        ConfigError: there is no tokenizer, it has no EOS token, or the template does not fit.
    """
    source = resolve(model) if isinstance(model, str) else name_of_model(model)
    if tokenizer is None or isinstance(tokenizer, str | Path):
        if not (tokenizer or source):
            raise ConfigError("tokenizer: None, and the model does not know where it was loaded from - give one")
        ready = load_tokenizer(source if tokenizer is None else resolve(str(tokenizer)))
    elif isinstance(tokenizer, PreTrainedTokenizerBase):
        ready = with_pad(copy.deepcopy(tokenizer), "tokenizer", _listed_eos(model))
    else:
        raise ConfigError(
            f"tokenizer: expected a tokenizer of transformers or a name, found {type(tokenizer).__name__}"
        )
    use_chat_template(ready, **section.chat)
    if tokenizer is not None and not isinstance(model, str):
        check_tokens(ready, source, "tokenizer")
    ends = eos_ids(source, ready) if isinstance(model, str) else all_eos_ids(ready, _listed_eos(model))
    return Language(tokenizer=ready, eos_ids=ends)


def given_policy(policy: Model, section: TuningSection, tokenizer: PreTrainedTokenizerBase) -> Trainable:
    """Load the policy, or take the given model, and decide which of its weights are trained.

    In a given model these are the weights that require gradients, less those that `section` freezes.

    Raises:
        ConfigError: it cannot be loaded, or does not fit the tokenizer or the config.
    """
    if isinstance(policy, str):
        source = resolve(policy)
        if section.lora == "continue":
            return going_on(source, section, tokenizer)
        return tuned(load_causal_lm(source, quantize=section.quantize), section, tokenizer, source)
    name = name_of_model(policy)
    _check_trainable("policy", policy)
    if not is_adapted(policy):
        check_logits(plain(policy), name)
        return tuned(policy, section, tokenizer, name)
    if section.lora not in (None, "continue") or section.trainable_layers is not None:
        raise ConfigError("model.lora, model.trainable_layers: the policy has an adapter already - leave them out")
    if section.quantize is not None:
        raise ConfigError("model.quantize: the policy has its adapter on whole weights - give the adapter's directory")
    model = policy.get_base_model()
    is_prompt = policy.active_peft_config.is_prompt_learning
    if is_prompt or not isinstance(model, PreTrainedModel) or not hasattr(policy, "disable_adapter"):
        raise ConfigError("policy: the only peft adapters supported are those on a causal language model")
    check_logits(plain(model), name)
    fit_vocabulary(model, tokenizer, name)
    speed_up(model)
    return Trainable(model=model, adapter=policy, source=name, continues=section.lora == "continue")


def given_reward_model(model: Model, config: RewardSettings, tokenizer: PreTrainedTokenizerBase) -> Trainable:
    """Load a model with a new scalar head, put one on a copy of a language model, or take a classifier as it is.

    Raises:
        ConfigError: it cannot be loaded, is another kind of model, or does not fit the tokenizer or the config.
    """
    if isinstance(model, str):
        source = resolve(model)
        model = load_scalar_lm(source, new_head=True, seed=config.seed, quantize=config.model.quantize)
        return tuned(model, config.model, tokenizer, source)
    if not isinstance(model, PreTrainedModel):
        fix = " - merge an adapter first (merge_and_unload)" if is_adapted(model) else ""
        raise ConfigError(
            "model: expected a causal language model or a sequence classifier of transformers, or a name, found "
            f"{type(model).__name__}{fix}"
        )
    _check_trainable("model", model)
    if model.can_generate():
        return tuned(with_new_head(model, config.seed), config.model, tokenizer, name_of_model(model))
    scalar_head(model)
    if model.config.num_labels != 1:
        raise ConfigError(f"model: a reward model needs 1 label, found {model.config.num_labels} - set num_labels=1")
    return tuned(plain(model), config.model, tokenizer, name_of_model(model))


def given_reference(
    reference: Model | None, policy: Model, language: Language, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel | None:
    """Return a frozen reference model; None if the policy as it is at the start is the reference.

    Raises:
        ConfigError: it cannot be loaded, does not fit the tokenizer, or is the policy itself.
    """
    if reference is None or (isinstance(reference, str) and reference == policy):
        return None
    if reference is policy:
        raise ConfigError("reference: it is the policy itself, which is trained - give None for a frozen copy of it")
    if is_adapted(reference):
        raise ConfigError("reference: an adapter - merge it first (merge_and_unload), or give its directory")
    if not isinstance(reference, str | None) and not isinstance(policy, str) and _share_weights(reference, policy):
        raise ConfigError(
            "reference: it shares weights with the policy, which is trained - give None (the policy as it is now, or "
            "the model below its adapter) or a model that was loaded separately"
        )
    if isinstance(reference, str):
        return load_reference(resolve(reference), language.tokenizer, dtype, device)
    check_whole(reference, "reference")
    name = name_of_model(reference)
    check_tokens(language.tokenizer, name, "reference")
    check_logits(plain(reference), name)
    return made_frozen(reference, name, language.tokenizer, dtype, device)


def weights_digest(model: torch.nn.Module) -> str:
    """Return a sha256 over the weights of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def name_of_model(model: Any) -> str:
    """Return where a model was loaded from; an empty string if it does not know."""
    inner = model.get_base_model() if is_adapted(model) else model
    return str(getattr(inner, "name_or_path", "") or "")


def _check_trainable(role: str, model: torch.nn.Module) -> None:
    """Refuse a model with nothing to train, with layers of an earlier adapter left in it, or quantized by others."""
    check_whole(model.get_base_model() if is_adapted(model) else model, role)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            f"{role}: none of its weights requires gradients - call requires_grad_(True), or load an adapter with "
            "PeftModel.from_pretrained(..., is_trainable=True)"
        )
    if not is_adapted(model) and has_adapter_layers(model):
        raise ConfigError(f"{role}: it still has the layers of an adapter - load it again, or give the peft model")


def _share_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    known = {id(parameter) for parameter in one.parameters()}
    return any(id(parameter) in known for parameter in other.parameters())


def plain(model: PreTrainedModel) -> PreTrainedModel:
    """Turn a model into what `load_causal_lm` returns: float32, in memory of its own, no dropout."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32, copy=True)
    return switch_off_dropout(model)


def _listed_eos(model: Model) -> int | list[int] | None:
    if isinstance(model, str):
        return None
    listed: int | list[int] | None = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return listed


def digest_of(given: Model) -> str:
    """Return a sha256 over the files or the weights of a model."""
    if isinstance(given, str):
        return content_digest(resolve(given))
    return weights_digest(given)
