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
    """[N] int64, row of each response token that the policy emitted, in row order."""
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


def join(
    prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor, forced: Tensor | None = None
) -> Sequences:
    """Join prompts and responses, each at the left of its row.

    Args:
        prompt_ids: [B, P] int64.
        prompt_mask: [B, P] bool, True on real tokens.
        response_ids: [B, T] int64.
        response_mask: [B, T] bool, True on the tokens that the policy emitted: these are predicted.
        forced: [B, T] bool, True on tokens before them that a reset put there: these are read, like the prompt.

    Raises:
        ValueError: a prompt is empty, real tokens follow padding, or a token is both forced and emitted.
    """
    present = response_mask if forced is None else response_mask | forced
    for name, mask in (("prompt_mask", prompt_mask), ("response_mask", present)):
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise ValueError(f"{name} must be True from the left without a gap: sequences are right-padded")
    if not bool(prompt_mask.any(1).all()):
        raise ValueError("every prompt needs at least one token: nothing else predicts the first response token")
    if forced is not None and bool((forced & response_mask.cummax(1).values).any()):
        raise ValueError("forced tokens must come before every token that the policy emitted")
    prompt_lengths = prompt_mask.sum(1)
    lengths = prompt_lengths + present.sum(1)
    input_ids = prompt_ids.new_zeros(len(lengths), int(lengths.max()))
    rows, columns = prompt_mask.nonzero(as_tuple=True)
    input_ids[rows, columns] = prompt_ids[rows, columns]
    rows, steps = present.nonzero(as_tuple=True)
    input_ids[rows, prompt_lengths[rows] + steps] = response_ids[rows, steps]
    rows, steps = response_mask.nonzero(as_tuple=True)
    return Sequences(input_ids=input_ids, lengths=lengths, rows=rows, steps=steps, columns=prompt_lengths[rows] + steps)
