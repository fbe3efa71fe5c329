"""Answers from Python: `generate` runs the same code as `rlhf generate`."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.api.data import GivenPrompts, given_prompts
from rlhf.api.models import (
    GivenTokenizer,
    Model,
    check_kind,
    check_tokenizer,
    given_language,
    name_of_model,
    name_or_model,
    plain,
)
from rlhf.config import GenerateSettings
from rlhf.config.reading.loader import validate
from rlhf.config.shared import ChatSection
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.evaluation.generate import answers
from rlhf.evaluation.respond import Policy, load_policy
from rlhf.fetch import resolve
from rlhf.models.passes.anatomy import check_logits
from rlhf.models.pretrained.adapted import is_adapted
from rlhf.models.reference import made_frozen
from rlhf.stage.frame import Frame
from rlhf.stage.supervised import Source
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes

if TYPE_CHECKING:
    from peft import PeftModel


def generate(
    policy: Model | Path,
    prompts: GivenPrompts,
    tokenizer: GivenTokenizer = None,
    *,
    max_new_tokens: int = 48,
    temperature: float = 1.0,
    seed: int = 0,
    **more: Any,
) -> list[dict[str, Any]]:
    """Let a policy answer prompts.

    Under `accelerate launch` the first process answers, and every process returns the rows.

    Args:
        policy: a causal language model or adapter (peft), left unchanged; or the name of one.
        prompts: texts, lists of messages, or mappings with `prompt`; or the name of a file or data set.
        tokenizer: for a policy passed as an object; None loads the one saved with it.
        max_new_tokens: longest response in tokens.
        temperature: 0 decodes greedily.
        seed: of the sampler.
        more: the other keys of `GenerateSettings`: samples_per_prompt, stop_strings, top_k, top_p, batch_rows,
            cuda_graphs, engine, precision, fitting.

    Returns:
        One row per response, in the order of the prompts: prompt, response, ended, tokens.

    Raises:
        RlhfError: something cannot be loaded, or the parts do not fit together.
    """
    given = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed, **more}
    settings = validate(GenerateSettings, given, "generate")
    start = name_or_model(policy)
    check_kind("policy", start)
    check_tokenizer(tokenizer, [start])
    source = given_prompts(prompts, settings.fitting)
    processes = Processes()
    found = _answered(start, tokenizer, source, settings, processes.device) if processes.is_main else []
    return processes.gathered(found)


class Generating:
    """What a trainer of a policy offers besides training."""

    _run: Frame

    @property
    def model(self) -> "PreTrainedModel | PeftModel":
        """The policy."""
        raise NotImplementedError

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        raise NotImplementedError

    def generate(self, prompts: GivenPrompts, **settings: Any) -> list[dict[str, Any]]:
        """Let the policy as it is now answer prompts, as `rlhf.generate` does; training is unaffected.

        Args:
            prompts: texts, lists of messages, or mappings with `prompt`; or the name of a file or data set.
            settings: keyword arguments of `rlhf.generate`; `precision` is that of the run unless it is given.

        Raises:
            RlhfError: a setting or a prompt does not fit.
        """
        precision = str(self._run.dtype).removeprefix("torch.")
        return generate(self.model, prompts, self._tokenizer, **{"precision": precision, **settings})


def answering(
    model: "PreTrainedModel | PeftModel",
    tokenizer: GivenTokenizer,
    section: ChatSection,
    dtype: torch.dtype,
    device: torch.device,
) -> Policy:
    """Return a frozen copy of a model, ready to answer, as `load_policy` returns one from a directory.

    Raises:
        ConfigError: there is no tokenizer, or it does not fit the model.
    """
    language, name = given_language(tokenizer, model, section), name_of_model(model) or type(model).__name__
    own = _merged(copy.deepcopy(model))
    check_logits(own, name)
    frozen = made_frozen(own, name, language.tokenizer, dtype, device)
    return Policy(path=name, model=frozen, tokenizer=language.tokenizer, eos_ids=language.eos_ids)


def _answered(
    policy: Model, tokenizer: GivenTokenizer, source: Source, settings: GenerateSettings, device: torch.device
) -> list[dict[str, Any]]:
    dtype = compute_dtype(settings.precision, device)
    if isinstance(policy, str):
        ready = load_policy(resolve(policy), dtype, device, settings.chat)
    else:
        ready = answering(policy, tokenizer, settings, dtype, device)
    prompts = prepare_prompts(source.rows, ready.tokenizer, **source.fitting.fitting).items
    return answers(ready, prompts, settings)


def _merged(model: "PreTrainedModel | PeftModel") -> PreTrainedModel:
    """Return a float32 model without an adapter."""
    if not is_adapted(model):
        return plain(model)
    base = model.get_base_model()
    if not isinstance(base, PreTrainedModel):
        raise ConfigError("policy: the only peft adapters supported are those on a causal language model")
    plain(base)
    whole: PreTrainedModel = model.merge_and_unload()
    return whole
