"""Whole responses: the forced tokens of a reset, then what the policy emitted."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.batches import Batch, Samples
from rlhf.ppo.starts.start_states import StartStates


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses(Batch):
    """Left-aligned responses [B, T]."""

    response_ids: Tensor
    """[B, T] int64, forced tokens and emitted ones, 0 after the end."""
    response_mask: Tensor
    """[B, T] bool, True on what the policy emitted."""
    forced: Tensor
    """[B, T] bool, True on the tokens that a reset put before it."""
    ended: Tensor
    """[B] bool, True when the response ended by EOS or a stop string."""

    @property
    def lengths(self) -> Tensor:
        """Return [B] int64, the length of each whole response in tokens."""
        return (self.response_mask | self.forced).sum(1)

    def only(self, kept: Tensor) -> "Responses":
        """Return the same rows, emptied where `kept` [B] is False: none of their tokens counts."""
        return Responses(
            response_ids=self.response_ids * kept[:, None],
            response_mask=self.response_mask & kept[:, None],
            forced=self.forced & kept[:, None],
            ended=self.ended & kept,
        )


def whole_responses(starts: StartStates, samples: Samples) -> Responses:
    """Put the forced tokens of each start state in front of the tokens sampled from it."""
    num_forced = starts.num_forced
    lengths = num_forced + samples.response_mask.sum(1)
    places = torch.arange(int(lengths.max()), device=lengths.device)
    forced = places < num_forced[:, None]
    mask = (places < lengths[:, None]) & ~forced
    ids = samples.response_ids.new_zeros(mask.shape)
    # Both sides are indexed row by row, left to right.
    ids[mask] = samples.response_ids[samples.response_mask]
    flat = [token for prefix in starts.prefixes for token in prefix]
    ids[forced] = torch.tensor(flat, dtype=ids.dtype, device=ids.device)
    return Responses(response_ids=ids, response_mask=mask, forced=forced, ended=samples.ended)


def decode_steps_saved(responses: Responses, batch_rows: int) -> int:
    """Count the decode steps that prefilling saved: a batch needs as many as its longest row.

    That is the longest whole response minus the most tokens that any row emitted, summed over the sampler's batches.
    """
    steps = 0
    whole, emitted = responses.lengths, responses.response_mask.sum(1)
    for rows in torch.arange(len(whole), device=whole.device).split(batch_rows):
        steps += int(whole[rows].max()) - int(emitted[rows].max())
    return steps
