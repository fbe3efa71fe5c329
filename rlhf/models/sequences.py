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

    @property
    def targets(self) -> Tensor:
        """Return [N] int64, the response tokens themselves."""
        return self.input_ids[self.rows, self.columns]

    def predicting(self, hidden: Tensor) -> Tensor:
        """Return the entries of `hidden` [B, S, H] that predict a response token, [N, H]."""
        return hidden[self.rows, self.columns - 1]

    def placed(self, flat: Tensor, num_steps: int) -> Tensor:
        """Return [B, T], T = `num_steps`, with the entries of `flat` [N] at their row and step and 0 elsewhere."""
        empty = torch.zeros(len(self.lengths), num_steps, dtype=flat.dtype, device=flat.device)
        return empty.index_put((self.rows, self.steps), flat)


def join(prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor) -> Sequences:
    """Join prompts [B, P] and responses [B, T] (masks True on real tokens, which stand at the left).

    Raises:
        ValueError: a prompt is empty, or real tokens follow padding.
    """
    for name, mask in (("prompt_mask", prompt_mask), ("response_mask", response_mask)):
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise ValueError(f"{name} must be True from the left without a gap: sequences are right-padded")
    if not bool(prompt_mask.any(1).all()):
        raise ValueError("every prompt needs at least one token: nothing else predicts the first response token")
    prompt_lengths = prompt_mask.sum(1)
    lengths = prompt_lengths + response_mask.sum(1)
    input_ids = prompt_ids.new_zeros(len(lengths), int(lengths.max()))
    rows, columns = prompt_mask.nonzero(as_tuple=True)
    input_ids[rows, columns] = prompt_ids[rows, columns]
    rows, steps = response_mask.nonzero(as_tuple=True)
    columns = prompt_lengths[rows] + steps
    input_ids[rows, columns] = response_ids[rows, steps]
    return Sequences(input_ids=input_ids, lengths=lengths, rows=rows, steps=steps, columns=columns)
