"""Responses by transformers' `generate`, for models whose past is no cache of keys and values (Mamba, RWKV, xLSTM).

The draws are ours: `generate` runs the model and keeps its states, a logits processor draws each token as the native
sampler does, from the same uniform numbers. Where both know a model, both draw the same tokens.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from rlhf.batches import PromptBatch, Samples
from rlhf.errors import EngineError
from rlhf.sampling.endings import OnOver
from rlhf.sampling.filters import Filtering, Filters
from rlhf.sampling.sampler import (
    _check_lengths,
    _check_temperature,
    _limits,
    _next_tokens,
    _prefixes,
    _samples,
    _uniforms,
)
from rlhf.sampling.stopping import Decodes, StopRule

LARGEST_DIFFERENCE = 0.25
"""Nats by which a logprob may differ between a model's states and a whole pass; rounding in bfloat16 stays below."""
_TRIED = 8
_GOLDEN = 0.6180339887498949  # its multiples, less their integers, are spread over [0, 1)
_TRUSTED: "WeakKeyDictionary[PreTrainedModel, bool]" = WeakKeyDictionary()
"""Whether `generate` keeps the states of a model, by model."""


def takes_keys_and_values(model: Callable[..., Any]) -> bool:
    """Say whether a model's forward takes the cache that the native decoder hands it.

    A model that does not would drop it without a word, and read each new token as if nothing came before.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(inner, PreTrainedModel):
        return True
    return "past_key_values" in inspect.signature(inner.forward).parameters


@torch.no_grad()
def sample_by_generate(  # noqa: PLR0913 - the options of one batch, as `sample` has them
    model: Any,
    prompts: PromptBatch,
    *,
    max_new_tokens: int,
    temperature: float,
    eos_ids: Sequence[int],
    generator: torch.Generator,
    stop_strings: Sequence[str] = (),
    tokenizer: Decodes | None = None,
    num_forced: Tensor | None = None,
    filters: Filters | None = None,
    on_over: OnOver | None = None,
) -> Samples:
    """Sample one response for each prompt, with the arguments and the result of `rlhf.sampling.sampler.sample`.

    Prompts of one length are read together, without padding: not every model with states can mask it. A model whose
    states do not give what a whole pass gives (tried once) reads the whole sequence at every token.

    Raises:
        EngineError: the model's logprobs are not those of a whole pass either way.
        ValueError: as `sample` does.
        GuardStop: the model's logits are not finite.
    """
    prompts = prompts.to(model.device)
    limits = _limits(prompts, num_forced, max_new_tokens)
    _check_lengths(model, prompts, limits, max_new_tokens, 0)
    _check_temperature(temperature)
    drawing = _Drawing(prompts, limits, _uniforms(len(limits), max_new_tokens, temperature, generator), temperature)
    drawing.filters = filters
    drawing.rule = StopRule(eos_ids, stop_strings, tokenizer, model.device)
    drawing.before = _prefixes(prompts, max_new_tokens - limits) if stop_strings else None
    lengths = prompts.prompt_mask.sum(1)
    for length in sorted(lengths.unique().tolist(), reverse=True):
        rows = (lengths == length).nonzero()[:, 0]
        ids = prompts.prompt_ids[rows, :length]
        _generate(model, ids, drawing.of(rows), int(limits[rows].max()), use_cache=_keeps_states(model, ids[:2]))
        if on_over is not None:
            for row in rows.tolist():
                on_over(row, drawing.ids[row, : int(drawing.lengths[row])].tolist())
    return _samples(drawing.ids, drawing.logprobs, drawing.lengths, drawing.ended)


class _Drawing:
    """What is drawn of a batch, row by row."""

    filters: Filters | None
    rule: StopRule
    before: list[list[int]] | None
    """[B] forced tokens of each response, where stop strings are searched."""

    def __init__(self, prompts: PromptBatch, limits: Tensor, uniforms: Tensor, temperature: float) -> None:
        device, shape = limits.device, (len(limits), int(limits.max()))
        self.prompts, self.limits, self.temperature = prompts, limits, temperature
        self.uniforms = uniforms.to(device)
        self.ids = torch.zeros(shape, dtype=torch.int64, device=device)
        self.logprobs = torch.zeros(shape, dtype=torch.float32, device=device)
        self.lengths, self.ended = limits.clone(), torch.zeros_like(limits, dtype=torch.bool)

    def of(self, rows: Tensor) -> "_Group":
        """Return the part of it that draws for the rows [N]."""
        return _Group(self, rows)


class _Group(LogitsProcessor):
    """Draws the tokens of some rows, and says when all of them are over."""

    def __init__(self, drawing: _Drawing, rows: Tensor) -> None:
        self._all, self._rows = drawing, rows
        self._step = 0
        self._filtered: Filtering | None = None

    def draw(self, scores: Tensor) -> Tensor:
        """Draw from the logits [N, V], and return logits that leave nothing but what was drawn."""
        everything, rows, step = self._all, self._rows, self._step
        if self._filtered is None:
            self._filtered = Filtering(everything.filters, everything.prompts, scores.shape[-1])
        logits = self._filtered(scores, rows, everything.temperature)
        draw = _next_tokens(logits, everything.uniforms[rows, step], everything.temperature)
        everything.ids[rows, step], everything.logprobs[rows, step] = draw.ids, draw.logprobs
        self._filtered.add(rows, draw.ids)
        self._step = step + 1
        return torch.full_like(scores, -torch.inf).scatter(1, draw.ids[:, None], 0.0)

    def is_over(self) -> Tensor:
        """Return [N] bool, True for rows that ended or reached their limit; notes where the last token ended a row."""
        everything, rows, step = self._all, self._rows, self._step
        over = everything.ended[rows] | (everything.limits[rows] < step)
        ends = everything.rule.by_token(everything.ids[rows, step - 1])
        if everything.before is not None:
            whole = [everything.before[row] + everything.ids[row, :step].tolist() for row in rows.tolist()]
            ends = ends | torch.tensor([everything.rule.by_text(ids) for ids in whole], device=ends.device)
        ends = ends & ~over
        everything.lengths[rows[ends]] = step
        everything.ended[rows[ends]] = True
        return everything.ended[rows] | (everything.limits[rows] <= step)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Draw, as a logits processor."""
        return self.draw(scores)


class _Stop(StoppingCriteria):
    """Ends `generate` where a group is over."""

    def __init__(self, group: _Group) -> None:
        self._group = group

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:
        """Say which rows are over."""
        return self._group.is_over()


def _generate(model: Any, ids: Tensor, group: _Group, max_new_tokens: int, *, use_cache: bool) -> None:
    own = model.generation_config
    model.generation_config = GenerationConfig()  # its settings would change what is drawn
    try:
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            logits_processor=LogitsProcessorList([group]),
            stopping_criteria=StoppingCriteriaList([_Stop(group)]),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=0,
            use_cache=use_cache,
        )
    finally:
        model.generation_config = own


def _keeps_states(model: Any, ids: Tensor) -> bool:
    """Whether `generate` is to keep the model's states, or to read all tokens at each step; tried once on ids [N, P].

    Raises:
        EngineError: neither gives the logprobs of a whole pass.
    """
    known = _TRUSTED.get(model)
    if known is None:
        sound = [use_cache for use_cache in (True, False) if _agrees(model, ids, use_cache=use_cache)]
        if not sound:
            raise EngineError(
                f"{type(model).__name__}: transformers' generate draws from other logprobs than a pass over the whole "
                "sequence gives, which is what is trained - use another model, or another version of transformers"
            )
        known = _TRUSTED[model] = sound[0]
    return known


def _agrees(model: Any, ids: Tensor, *, use_cache: bool) -> bool:
    mask = torch.ones_like(ids, dtype=torch.bool)
    limits = torch.full((len(ids),), _TRIED, device=ids.device)
    uniforms = (torch.arange(len(ids) * _TRIED, dtype=torch.float64) * _GOLDEN % 1).reshape(len(ids), _TRIED)
    drawing = _Drawing(PromptBatch(prompt_ids=ids, prompt_mask=mask), limits, uniforms, 1.0)
    drawing.filters, drawing.before = None, None
    drawing.rule = StopRule((), (), None, ids.device)
    try:
        rows = torch.arange(len(ids), device=ids.device)
        _generate(model, ids, drawing.of(rows), _TRIED, use_cache=use_cache)
    except (ValueError, RuntimeError, TypeError, AttributeError):  # its states cannot be kept at all
        return False
    whole = model(input_ids=torch.cat([ids, drawing.ids], 1), use_cache=False).logits[:, ids.shape[1] - 1 : -1]
    logprobs = whole.float().log_softmax(-1).gather(2, drawing.ids[:, :, None])[:, :, 0]
    return bool(((logprobs - drawing.logprobs).abs() <= LARGEST_DIFFERENCE).all())
