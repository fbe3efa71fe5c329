"""Turns a batch of prompts into responses, with the logprob of each sampled token.

Left out: beams, speculative decoding. Filters (top-k, top-p) are for answers: their logprobs are not the policy's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf.batches import PromptBatch, Samples, sent
from rlhf.errors import GuardStop
from rlhf.sampling.decoder import Decoder
from rlhf.sampling.endings import Endings, OnOver
from rlhf.sampling.filters import Filtering, Filters
from rlhf.sampling.inverse_cdf import Draw, draw_tokens, most_probable_tokens
from rlhf.sampling.packed import PackedDecoder, PackedModel, is_packable
from rlhf.sampling.static_decoder import static_decoder
from rlhf.sampling.stopping import Decodes, StopRule

LEAVE_SHARE = 1 / 8
"""Finished rows leave once they are this share of the batch: leaving copies the cache, staying wastes compute."""
LEAVE_SHARE_ON_GPU = 1 / 2
"""The same where a step reads all weights whatever the rows are, so that a row that stays costs little."""


@torch.no_grad()
def sample(  # noqa: PLR0913 - the options of one batch, keyword-only
    model: Callable[..., Any],
    prompts: PromptBatch,
    *,
    max_new_tokens: int,
    temperature: float,
    eos_ids: Sequence[int],
    generator: torch.Generator,
    stop_strings: Sequence[str] = (),
    tokenizer: Decodes | None = None,
    min_new_tokens: int = 0,
    num_forced: Tensor | None = None,
    filters: Filters | None = None,
    cuda_graphs: bool = True,
    on_over: OnOver | None = None,
) -> Samples:
    """Sample one response for each prompt from softmax(logits / temperature).

    The uniform numbers of all rows and steps are drawn first, so that a row's response depends on its own numbers, not
    on when other rows end. The one exception is bfloat16: a row's logits shift slightly with the shape of its batch,
    so a draw near the border between two tokens may fall on the other side.

    Args:
        model: a Hugging Face causal LM in eval mode, or anything with its `forward`, `config` and `device`.
        prompts: moved to the model's device.
        max_new_tokens: a response that reaches it without a stop is truncated; forced tokens count.
        temperature: above 0, or 0 for the most probable token (its logprobs are then those at temperature 1).
        eos_ids: tokens that end a response and belong to it; may be empty.
        generator: on any device; advances by B * max_new_tokens float64 numbers, or not at all at temperature 0.
        stop_strings: texts that end a response, which keeps all tokens up to the one that completed the text.
        tokenizer: needed for stop strings.
        min_new_tokens: EOS gets probability 0 before that many tokens, in logprobs too; stop strings may still end it.
        num_forced: [B] int64, how many tokens at the end of each prompt already begin its response: they count towards
            `max_new_tokens`, and a stop string may begin in them. None for 0.
        filters: tokens that may not be drawn have probability 0, in logprobs too. None for the policy as it is.
        cuda_graphs: on CUDA, capture the steps of models that allow it and replay them; nothing else knows it.
        on_over: told of each response as soon as it is over.

    Returns:
        Samples on the model's device, without forced tokens, as wide as the longest response.

    Raises:
        ValueError: an argument out of range, a model in training mode, or prompts too long for the model's positions.
        GuardStop: the model's logits are not finite.
    """
    device = torch.device(getattr(model, "device", prompts.prompt_ids.device))
    prompts = prompts.to(device)
    limits = _limits(prompts, num_forced, max_new_tokens)
    _check_lengths(model, prompts, limits, max_new_tokens, min_new_tokens)
    _check_temperature(temperature)
    stop_rule = StopRule(eos_ids, stop_strings, tokenizer, device)
    num_rows, num_steps = prompts.prompt_ids.shape[0], int(limits.max())
    prefixes = _prefixes(prompts, max_new_tokens - limits) if stop_strings else None
    uniforms = sent(_uniforms(num_rows, max_new_tokens, temperature, generator), device)
    response_ids = torch.zeros(num_rows, num_steps, dtype=torch.int64, device=device)
    logprobs = torch.zeros(num_rows, num_steps, dtype=torch.float32, device=device)
    endings = Endings(stop_rule, limits, prefixes, on_over)

    decoder = make_decoder(model, prompts, num_steps, cuda_graphs=cuda_graphs)
    held, rows = list(range(num_rows)), torch.arange(num_rows, device=device)  # what the decoder still holds
    logits = decoder.read_prompts()
    filtered = Filtering(filters, prompts, logits.shape[-1])
    for step in range(num_steps):
        if step < min_new_tokens:
            logits = logits.index_fill(-1, stop_rule.eos_ids, -torch.inf)
        draw = _next_tokens(filtered(logits, rows, temperature), uniforms[rows, step], temperature)
        response_ids[rows, step], logprobs[rows, step] = draw.ids, draw.logprobs
        endings.add(rows, draw.ids, step)
        filtered.add(rows, draw.ids)
        next_ids = draw.ids
        if endings.is_time(step + 1):
            over = endings.look(held, rows, response_ids, step + 1)
            if all(over):
                break
            if sum(over) >= leave_share(device) * len(over):
                kept = [place for place, is_over in enumerate(over) if not is_over]
                index = sent(torch.tensor(kept), device)
                decoder.keep_rows(index)
                held, rows, next_ids = [held[place] for place in kept], rows[index], next_ids[index]
        logits = decoder.read_tokens(next_ids)
    return _samples(response_ids, logprobs, endings.lengths, endings.ended)


def leave_share(device: torch.device) -> float:
    """Return the share of finished rows from which they leave the batch."""
    return LEAVE_SHARE_ON_GPU if device.type == "cuda" else LEAVE_SHARE


def make_decoder(
    model: Callable[..., Any], prompts: PromptBatch, max_new_tokens: int, *, cuda_graphs: bool = True
) -> Decoder | PackedDecoder:
    """Return the fastest decoder that supports the model; `cuda_graphs` says whether it may be a `StaticDecoder`."""
    if is_packable(model):
        return PackedDecoder(PackedModel(model, len(prompts.prompt_ids)), prompts, max_new_tokens)
    static = None
    if cuda_graphs and prompts.prompt_ids.device.type == "cuda":
        static = static_decoder(model, prompts, max_new_tokens)
    return static or Decoder(model, prompts, max_new_tokens)


def _next_tokens(logits: Tensor, uniforms: Tensor, temperature: float) -> Draw:
    return draw_tokens(logits, uniforms, temperature) if temperature > 0 else most_probable_tokens(logits)


def _uniforms(num_rows: int, num_steps: int, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return torch.zeros(num_rows, num_steps, dtype=torch.float64)
    return torch.rand(num_rows, num_steps, dtype=torch.float64, generator=generator, device=generator.device)


def _limits(prompts: PromptBatch, num_forced: Tensor | None, max_new_tokens: int) -> Tensor:
    """Return how many tokens each row may write, [B] int64."""
    lengths = prompts.prompt_mask.sum(-1)
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, found {max_new_tokens}")
    if num_forced is None:
        return torch.full_like(lengths, max_new_tokens)
    forced = num_forced.to(lengths)
    most = (lengths - 1).clamp(max=max_new_tokens - 1)
    bad = ((forced < 0) | (forced > most)).nonzero()[:, 0].tolist()
    if bad:
        row = bad[0]
        raise ValueError(
            f"num_forced ({int(forced[row])} in row {row}) must leave at least 1 token of the prompt "
            f"({int(lengths[row])}) and 1 of max_new_tokens ({max_new_tokens})"
        )
    return max_new_tokens - forced


def _prefixes(prompts: PromptBatch, num_forced: Tensor) -> list[list[int]]:
    """Return the forced tokens at the end of each prompt."""
    lengths = prompts.prompt_mask.sum(-1)
    starts, ends = (lengths - num_forced).tolist(), lengths.tolist()
    return [ids[start:end] for ids, start, end in zip(prompts.prompt_ids.tolist(), starts, ends, strict=True)]


def _samples(response_ids: Tensor, logprobs: Tensor, lengths: Tensor, ended: Tensor) -> Samples:
    """Cut to the longest response and clear the tokens that a finished row generated before it left the batch."""
    mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    width = mask.shape[1]
    samples = Samples(
        response_ids=response_ids[:, :width] * mask,
        response_mask=mask,
        logprobs=logprobs[:, :width].masked_fill(~mask, 0.0),
        ended=ended,
    )
    if not bool(samples.logprobs.isfinite().all()):
        row, position = (~samples.logprobs.isfinite()).nonzero()[0].tolist()
        raise GuardStop(f"the policy's logits are not finite at row {row}, response token {position}")
    return samples


def _check_lengths(
    model: Callable[..., Any], prompts: PromptBatch, limits: Tensor, max_new_tokens: int, min_new_tokens: int
) -> None:
    if getattr(model, "training", False):
        raise ValueError("the model is in training mode, where dropout would falsify its logprobs: call model.eval()")
    if not 0 <= min_new_tokens <= max_new_tokens:
        raise ValueError(f"min_new_tokens ({min_new_tokens}) must be between 0 and max_new_tokens ({max_new_tokens})")
    mask = prompts.prompt_mask
    if mask.numel() == 0 or not bool(mask[:, 0].all()) or bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ValueError(f"prompts must be right-padded and not empty, found prompt_mask {list(mask.shape)}")
    longest = int((mask.sum(-1) + limits).max()) - max_new_tokens  # without forced tokens
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if limit is not None and longest + max_new_tokens > limit:
        raise ValueError(
            f"longest prompt ({longest}) + max_new_tokens ({max_new_tokens}) exceeds the model's "
            f"max_position_embeddings ({limit})"
        )


def _check_temperature(temperature: float) -> None:
    if not (temperature >= 0 and temperature < float("inf")):
        raise ValueError(f"temperature must be 0 (greedy) or a positive number, found {temperature}")
