"""Prompts and responses joined into right-padded sequences without a gap between them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """[B, S] sequences, and where in them each response token is predicted and stands."""

    input_ids: Tensor
    """[B, S] int64, prompt then response, 0 after the end; S is the longest real length."""
    lengths: Tensor
    """[B] int64, real tokens."""
    rows: Tensor
    """[N] int64, row of each real response token, in row order."""
    steps: Tensor
    """[N] int64, its index t in the response."""
    columns: Tensor
    """[N] int64, its column in input_ids; its logits stand one column to the left."""


def join(prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor) -> Sequences:
    """Join prompts [B, P] and responses [B, T] (masks True on real tokens, contiguous from the left).

    Raises:
        ValueError: a prompt is empty.
    """
    prompt_lengths, response_lengths = prompt_mask.sum(1), response_mask.sum(1)
    if prompt_lengths.numel() and int(prompt_lengths.min()) == 0:
        raise ValueError("every prompt needs at least one token: the first response token has nothing to be predicted from")
    lengths = prompt_lengths + response_lengths
    column = torch.arange(int(lengths.max()), device=prompt_ids.device)[None, :]
    from_response = (column - prompt_lengths[:, None]).clamp(0, max(response_ids.shape[1] - 1, 0))
    from_prompt = column.clamp(max=prompt_ids.shape[1] - 1).expand(len(lengths), -1)
    response_part = response_ids.gather(1, from_response) if response_ids.shape[1] else torch.zeros_like(from_response)
    joined = torch.where(column < prompt_lengths[:, None], prompt_ids.gather(1, from_prompt), response_part)
    rows, steps = response_mask.nonzero(as_tuple=True)
    return Sequences(
        input_ids=torch.where(column < lengths[:, None], joined, 0),
        lengths=lengths,
        rows=rows,
        steps=steps,
        columns=prompt_lengths[rows] + steps,
    )
