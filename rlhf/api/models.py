"""Models and tokenizers that a user gives from Python, as objects or by name, made ready for a PPO run."""

import copy
import hashlib
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import PPOSettings
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.passes.anatomy import check_logits, switch_off_dropout
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.pretrained.loading import frozen_in, load_causal_lm
from rlhf.models.pretrained.setup import Trainable
from rlhf.models.pretrained.tokenizer import Language, all_eos_ids, eos_ids, load_tokenizer, with_pad
from rlhf.models.pretrained.vocabulary import fit_vocabulary
from rlhf.stage import tuned
from rlhf.training.storage.fingerprint import content_digest

Model = PreTrainedModel | PeftModel | str
"""A loaded model, or the directory, `fetch:NAME` or hub name of one."""


def check_kinds(policy: object, reference: object) -> None:
    """Refuse what is no model of transformers, such as TRL's models with a value head.

    Raises:
        ConfigError: says what was found.
    """
    for role, given in {"policy": policy, "reference": reference}.items():
        is_known = isinstance(given, PreTrainedModel | PeftModel | str)
        if not is_known and not (role == "reference" and given is None):
            raise ConfigError(
                f"{role}: expected a causal language model of transformers, one with a peft adapter, or a name, found "
                f"{type(given).__name__}"
            )


def given_language(tokenizer: PreTrainedTokenizerBase | str | None, policy: Model) -> Language:
    """Return the policy's tokenizer with a pad token that ends nothing, and what ends a response.

    Raises:
        ConfigError: there is no tokenizer, or it has no EOS token.
    """
    source = resolve(policy) if isinstance(policy, str) else name_of_model(policy)
    if tokenizer is None or isinstance(tokenizer, str):
        if not (tokenizer or source):
            raise ConfigError("tokenizer: None, and the policy does not know where it was loaded from - give one")
        ready = load_tokenizer(source if tokenizer is None else resolve(tokenizer))
    else:
        ready = with_pad(copy.deepcopy(tokenizer), "tokenizer", _listed_eos(policy))
    ends = eos_ids(source, ready) if isinstance(policy, str) else all_eos_ids(ready, _listed_eos(policy))
    return Language(tokenizer=ready, eos_ids=ends)


def given_policy(policy: Model, config: PPOSettings, language: Language) -> Trainable:
    """Load the policy, or take the model that was given, and decide what of it is trained.

    Of a given model everything is trained that requires gradients, less what `config.model` freezes.

    Raises:
        ConfigError: it cannot be loaded, or does not fit the tokenizer or the config.
    """
    if isinstance(policy, str):
        source = resolve(policy)
        return tuned(load_causal_lm(source), config.model, language.tokenizer, source)
    name = name_of_model(policy)
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        raise ConfigError(
            "policy: none of its weights requires gradients - call requires_grad_(True), or load an adapter with "
            "PeftModel.from_pretrained(..., is_trainable=True)"
        )
    if not isinstance(policy, PeftModel):
        if any(isinstance(module, BaseTunerLayer) for module in policy.modules()):
            raise ConfigError("policy: it has layers of an adapter already - load it anew, or give the peft model")
        check_logits(_plain(policy), name)
        return tuned(policy, config.model, language.tokenizer, name)
    if config.model.lora is not None or config.model.trainable_layers is not None:
        raise ConfigError("model.lora, model.trainable_layers: the policy has an adapter already - leave them out")
    model = policy.get_base_model()
    is_prompt = policy.active_peft_config.is_prompt_learning
    if is_prompt or not isinstance(model, PreTrainedModel) or not hasattr(policy, "disable_adapter"):
        raise ConfigError("policy: of peft's adapters only those on a causal language model are known")
    check_logits(_plain(model), name)
    fit_vocabulary(model, language.tokenizer, name)
    use_short_row_attention(model)
    return Trainable(model=model, adapter=policy, source=name)


def given_reference(
    reference: Model | None, policy: Model, language: Language, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel | None:
    """Return a frozen reference of its own; None where what the policy is at the start is to be it.

    Raises:
        ConfigError: it cannot be loaded, does not fit the tokenizer, or is the policy itself.
    """
    if reference is None or (isinstance(reference, str) and reference == policy):
        return None
    if reference is policy:
        raise ConfigError("reference: it is the policy itself, which is trained - give None for a frozen copy of it")
    if isinstance(reference, PeftModel):
        raise ConfigError("reference: an adapter - merge it first (merge_and_unload), or give its directory")
    if not isinstance(reference, str | None) and not isinstance(policy, str) and _share_weights(reference, policy):
        raise ConfigError(
            "reference: it has weights in common with the policy, which is trained - give None, which is the policy as "
            "it is now and the model below an adapter, or a model that was loaded apart"
        )
    model = load_causal_lm(resolve(reference)) if isinstance(reference, str) else reference
    name = reference if isinstance(reference, str) else name_of_model(reference)
    check_logits(_plain(model), name)
    fit_vocabulary(model, language.tokenizer, name)
    use_short_row_attention(model)
    return frozen_in(model, dtype).to(device)  # type: ignore[arg-type,no-any-return]  # decorated without types


def weights_digest(model: torch.nn.Module) -> str:
    """Return a sha256 over the weights of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def name_of_model(model: Any) -> str:
    """Return where a model was loaded from, as far as it knows."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return str(getattr(inner, "name_or_path", "") or "")


def _share_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    known = {id(parameter) for parameter in one.parameters()}
    return any(id(parameter) in known for parameter in other.parameters())


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """Bring a model into the state in which `load_causal_lm` returns one: float32, memory of its own, no dropout."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32, copy=True)
    return switch_off_dropout(model)


def _listed_eos(policy: Model) -> int | list[int] | None:
    if isinstance(policy, str):
        return None
    listed: int | list[int] | None = getattr(policy.generation_config, "eos_token_id", None)
    return listed


def digest_of(given: Model) -> str:
    """Return a sha256 over the files or the weights of a model."""
    if isinstance(given, str):
        return content_digest(resolve(given))
    return weights_digest(given)
