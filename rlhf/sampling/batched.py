"""Responses to any number of prompts, batch by batch: how rollouts, evaluation and guides call the sampler."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from rlhf.batches import PromptBatch, Samples, sent
from rlhf.sampling.endings import OnOver
from rlhf.sampling.engines.generated import sample_by_generate, takes_keys_and_values
from rlhf.sampling.filters import Filters
from rlhf.sampling.sampler import sample
from rlhf.sampling.stopping import Decodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How responses are drawn."""

    max_new_tokens: int
    """Longest response in tokens, forced tokens included."""
    temperature: float
    """Logits are divided by it; 0 takes the most probable token."""
    stop_strings: Sequence[str]
    """A response ends when one of them has appeared."""
    batch_rows: int
    """Prompts decoded together."""
    eos_ids: Sequence[int]
    """Tokens that end a response and belong to it."""
    tokenizer: Decodes
    """Decodes the text that is searched for stop strings."""
    filters: Filters | None = None
    """Which tokens may be drawn; None for the policy as it is."""
    cuda_graphs: Literal["auto", "off"] = "auto"
    """Whether a GPU replays captured decode steps, where the model allows it; a CPU never does."""


def sample_in_batches(  # noqa: PLR0913 - two of them listen
    model: Callable[..., Any],
    prompts: PromptBatch,
    decoding: Decoding,
    generator: torch.Generator,
    num_forced: Tensor | None = None,
    sampler: Callable[..., Samples] | None = None,
    on_drawn: Callable[[int], None] | None = None,
    on_over: OnOver | None = None,
) -> Samples:
    """Sample one response to each prompt, `decoding.batch_rows` prompts at a time, each batch as wide as it needs.

    Args:
        model: as `sample` takes it.
        prompts: any number of them.
        decoding: how responses are drawn.
        generator: advances batch by batch.
        num_forced: [B] int64, tokens at the end of each prompt that already begin its response; None for 0.
        sampler: draws a batch; None takes `sample`, or `sample_by_generate` for a model that it does not know.
        on_drawn: called after each batch with the number of its responses.
        on_over: told of each response as soon as it is over.

    Raises:
        ValueError: as `sample` does.
        GuardStop: the model's logits are not finite.
    """
    if sampler is not None:
        draw = sampler
    elif takes_keys_and_values(model):
        draw = partial(sample, cuda_graphs=decoding.cuda_graphs == "auto")
    else:
        draw = sample_by_generate
    parts = []
    for rows in torch.arange(len(prompts.prompt_ids)).split(decoding.batch_rows):
        told = None if on_over is None else partial(_told, on_over, int(rows[0]))
        part = draw(
            model,
            _trimmed(prompts.rows(rows)),
            max_new_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            eos_ids=decoding.eos_ids,
            generator=generator,
            stop_strings=tuple(decoding.stop_strings),
            tokenizer=decoding.tokenizer,
            num_forced=None if num_forced is None else num_forced[sent(rows, num_forced.device)],
            filters=decoding.filters,
            on_over=told,
        )
        parts.append(part)
        if on_drawn is not None:
            on_drawn(len(rows))
    return _joined(parts)


def _told(on_over: OnOver, first: int, row: int, ids: list[int]) -> None:
    on_over(first + row, ids)


def _trimmed(prompts: PromptBatch) -> PromptBatch:
    width = int(prompts.prompt_mask.sum(1).max())
    return PromptBatch(prompt_ids=prompts.prompt_ids[:, :width], prompt_mask=prompts.prompt_mask[:, :width])


def _joined(parts: Sequence[Samples]) -> Samples:
    width = max(part.response_ids.shape[1] for part in parts)

    def together(name: str) -> Tensor:
        tensors = [getattr(part, name) for part in parts]
        return torch.cat([torch.nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

    return Samples(
        response_ids=together("response_ids"),
        response_mask=together("response_mask"),
        logprobs=together("logprobs"),
        ended=torch.cat([part.ended for part in parts]),
    )
