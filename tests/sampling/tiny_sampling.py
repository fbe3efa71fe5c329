"""Prompts of random ids, and short samples of them."""

from typing import Any

import pytest
import torch

from rlhf.batches import PromptBatch, Samples
from rlhf.sampling import sampler


def prompts(*lengths: int, width: int | None = None) -> PromptBatch:
    """One prompt a length, all different; right-padded to `width`, or to the longest."""
    mask = torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.stack([torch.randint(3, 128, mask.shape[1:], generator=generator(row)) for row in range(len(mask))])
    return PromptBatch(prompt_ids=ids * mask, prompt_mask=mask)


def generator(seed: int) -> torch.Generator:
    """A generator at its start."""
    return torch.Generator().manual_seed(seed)


def sample(model: Any, prompts: PromptBatch, **changes: Any) -> Samples:
    """At most sixteen tokens a prompt, from the model itself, without an end."""
    settings = {"max_new_tokens": 16, "temperature": 1.0, "eos_ids": (), "generator": generator(7)}
    return sampler.sample(model, prompts, **(settings | changes))


def set_uniforms(monkeypatch: pytest.MonkeyPatch, table: torch.Tensor) -> None:
    """Let rows draw from a table [B, T], in place of a generator."""
    monkeypatch.setattr(sampler, "_uniforms", lambda num_rows, num_steps, *_: table[:num_rows, :num_steps])
