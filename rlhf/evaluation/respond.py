"""A policy answers prompts: load it, sample, and measure the KL of its responses to a reference."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.batches import PromptBatch, Samples, join
from rlhf.config.engine import AnsweringSection, GenerateEngineSection, NativeEngineSection, ServerSection
from rlhf.config.evaluate import DecodingSection
from rlhf.data.batching import collate_prompts, padded
from rlhf.data.records import Prompt
from rlhf.errors import ConfigError
from rlhf.evaluation.checkpoints import load_checkpoint, start_of, step_of
from rlhf.fetch import resolve
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.passes.packing import packs
from rlhf.models.passes.rotary import choose_factors
from rlhf.models.policy import sequence_logprobs
from rlhf.models.pretrained.generation import is_greedy, sampling_settings
from rlhf.models.pretrained.loading import check_positions, load_causal_lm
from rlhf.models.pretrained.quiet import quiet_transformers
from rlhf.models.pretrained.tokenizer import eos_ids, load_tokenizer
from rlhf.models.reference import made_frozen
from rlhf.sampling.batched import Decoding
from rlhf.sampling.engines.local import LocalEngine
from rlhf.sampling.engines.protocol import known_sequences
from rlhf.sampling.filters import Filters
from rlhf.stage.engine import make_server, weights_for_server
from rlhf.training.precision import compute_dtype

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A frozen policy that can answer."""

    path: str
    """Where it was loaded from."""
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """One response."""

    text: str
    """Without special tokens."""
    ids: tuple[int, ...]
    """Including EOS."""
    ended: bool
    """True when it ended by EOS or a stop string."""


class Answering:
    """What draws the answers of policies: an engine of this process, or a server that gets one policy after another."""

    def __init__(self, section: AnsweringSection | None = None) -> None:
        """Describe the engine; nothing is sent.

        Raises:
            ConfigError: the address of a server is none.
        """
        self._section = section or NativeEngineSection()
        self._server = make_server(self._section) if isinstance(self._section, ServerSection) else None
        self._held: Policy | None = None  # whose weights the server has

    def draw(
        self,
        policy: Policy,
        prompts: PromptBatch,
        decoding: Decoding,
        generator: torch.Generator,
        on_drawn: Callable[[int], None] | None = None,
    ) -> Samples:
        """Draw one response to each prompt from a policy's weights, as `respond` says.

        Raises:
            EngineError: the server does not answer, or not from these weights.
        """
        if self._server is None:
            generates = isinstance(self._section, GenerateEngineSection)
            return LocalEngine(policy.model, generates=generates, on_drawn=on_drawn).sample(
                prompts, decoding, generator
            )
        if self._held is not policy:
            self._held = None
            weights = weights_for_server(policy.model, partial(_save, policy), known_sequences(prompts))
            self._server.load(weights, self._server.version + 1)
            self._held = policy
        samples = self._server.sample(prompts, decoding, generator)
        if on_drawn is not None:
            on_drawn(len(samples.responses))
        return samples


def _save(policy: Policy, directory: Path) -> None:
    with quiet_transformers():
        policy.model.save_pretrained(directory)
        policy.tokenizer.save_pretrained(directory)


def load_policy(path: str, dtype: torch.dtype, device: torch.device, chat: Mapping[str, Any] | None = None) -> Policy:
    """Load a policy, frozen, with its tokenizer; an adapter is merged into its base.

    `path` may be a checkpoint of a PPO run, `runs/x/ppo/checkpoints/step-000020`, where it lies in its run. `chat`
    holds its chat template and variables of it, as `load_tokenizer` takes them.

    Raises:
        ConfigError: there is no model or no tokenizer, or they do not fit together.
    """
    source, own = start_of(path)
    tokenizer = load_tokenizer(source, **{**own, **{key: value for key, value in (chat or {}).items() if value}})
    lm = load_causal_lm(path) if step_of(path) is None else load_checkpoint(path)
    model = made_frozen(lm, path, tokenizer, dtype, device)
    return Policy(path=path, model=model, tokenizer=tokenizer, eos_ids=eos_ids(source, tokenizer))


def load_policy_here(
    model: str, precision: Literal["auto", "float32", "bfloat16"], chat: Mapping[str, Any] | None = None
) -> Policy:
    """Load a policy by directory, `fetch:NAME` or hub name, on the GPU if there is one.

    Raises:
        RlhfError: as for `load_policy`; or it cannot be fetched.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_policy(resolve(model), compute_dtype(precision, device), device, chat)


def fix_factors(policy: Policy, prompts: Sequence[Prompt], decoding: DecodingSection) -> None:
    """Fix rotary factors that depend on the length for the longest prompt and response, and say so."""
    said = choose_factors(policy.model, max(len(prompt.ids) for prompt in prompts) + decoding.max_new_tokens)
    if said is not None:
        print(f"{policy.path}: {said}", file=sys.stderr, flush=True)


def respond(
    policy: Policy,
    prompts: Sequence[Prompt],
    decoding: DecodingSection,
    generator: torch.Generator,
    answering: Answering | None = None,
    on_drawn: Callable[[int], None] | None = None,
) -> list[Response]:
    """Sample one response per prompt, `decoding.batch_rows` prompts at a time, natively or as `answering` says.

    `on_drawn` is told how many were drawn, after each batch; a server's are one batch.

    Raises:
        ConfigError: the longest prompt and a response do not fit into the model's positions.
        EngineError: a server does not answer, or not from the policy's weights.
        GuardStop: the model's logits are not finite.
    """
    fix_factors(policy, prompts, decoding)
    check_positions(
        policy.model,
        policy.path,
        max(len(prompt.ids) for prompt in prompts),
        decoding.max_new_tokens,
        key="decoding.max_new_tokens",
        fix="lower prompts.max_length or decoding.max_new_tokens",
    )
    tokenizer = policy.tokenizer
    batch = collate_prompts(list(prompts), int(tokenizer.pad_token_id))
    drawn = Decoding(**_drawing(policy, decoding), eos_ids=policy.eos_ids, tokenizer=tokenizer)
    samples = (answering or Answering()).draw(policy, batch, drawn, generator, on_drawn)
    texts = tokenizer.batch_decode([list(ids) for ids in samples.responses], skip_special_tokens=True)
    return [Response(*each) for each in zip(texts, samples.responses, samples.ended.tolist(), strict=True)]


def temperature_of(policy: Policy, decoding: DecodingSection) -> float:
    """Return the temperature at which a policy answers: the config's, or the model's own if `filters` is model."""
    return float(_drawing(policy, decoding)["temperature"])


def _drawing(policy: Policy, decoding: DecodingSection) -> dict[str, Any]:
    """Return the arguments of `Decoding`.

    Raises:
        ConfigError: the model's generation config has a setting that the sampler does not know.
    """
    given = decoding.model_dump(exclude={"filters", "top_k", "top_p"})
    if decoding.filters == "none":
        own = Filters(top_k=decoding.top_k, top_p=decoding.top_p)
        return {**given, "filters": None if own == Filters() else own}
    settings = sampling_settings(policy.model)
    temperature = settings.pop("temperature", given["temperature"])
    if is_greedy(policy.model):
        temperature = 0.0
    unknown = sorted(settings.keys() - {field.name for field in fields(Filters)})
    if unknown:
        raise ConfigError(
            f"{policy.path}: generation_config.json sets {', '.join(unknown)}, which decoding.filters=model does not "
            "know - take it out there, or set decoding.filters=none"
        )
    return {**given, "temperature": temperature, "filters": Filters(**settings)}  # type: ignore[arg-type]


def logprobs_of_both(
    policy: Policy,
    reference: Policy,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    *,
    temperature: float,
    max_tokens: int,
) -> tuple[Floats, Floats]:
    """Return log p(response) and log p_reference(response) in nats [R]; the mean difference estimates the KL (k1).

    Args:
        policy: the policy that gave the responses.
        reference: a model with the same tokenizer.
        prompts: one per response.
        responses: of the policy.
        temperature: divides the logits of both; above 0.
        max_tokens: tokens of one forward pass.
    """
    ids = [response.ids for response in responses]
    ours = np.array(response_logprobs(policy.model, prompts, ids, temperature, max_tokens))
    if policy is reference:
        return ours, ours
    return ours, np.array(response_logprobs(reference.model, prompts, ids, temperature, max_tokens))


@torch.no_grad()
def response_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[int]],
    temperature: float,
    max_tokens: int,
) -> list[float]:
    """Return the log probability in nats of each response, given its prompt.

    Args:
        model: a language model.
        prompts: one per response.
        responses: token ids, at least one each.
        temperature: divides the logits; above 0.
        max_tokens: tokens of one forward pass.
    """
    lengths = [len(prompt.ids) + len(ids) for prompt, ids in zip(prompts, responses, strict=True)]
    found = [0.0] * len(lengths)
    for items in token_budget_batches(lengths, max_tokens, packs=packs(model)):
        asked = padded([prompts[item].ids for item in items], 0)
        said = padded([responses[item] for item in items], 0)
        sequences = join(*(part.to(model.device) for part in (*asked, *said)))
        logprobs = sequence_logprobs(model, sequences, said[0].shape[1], temperature).sum(1)
        for item, total in zip(items, logprobs.tolist(), strict=True):
            found[item] = total
    return found
