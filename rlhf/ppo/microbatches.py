"""Cuts the rows of a rollout once into the microbatches that every pass over it uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rlhf.functional.token_budget import within_budget


@dataclass(frozen=True, slots=True)
class Microbatches:
    """Fixed groups of rows, in strata of similar length; a minibatch takes one group from each stratum.

    The groups never change while a rollout is used: in bfloat16 a row's logprobs depend on the rows in its batch, so
    the ratio is exactly 1 before the first update only if every pass sees the same groups. Strata keep padding low and
    give each minibatch both short and long responses.
    """

    strata: tuple[tuple[Tensor, ...], ...]
    """strata[s][m]: [N] int64 row indices."""

    def all(self) -> list[Tensor]:
        """Return every group once."""
        return [group for stratum in self.strata for group in stratum if len(group)]

    def spare(self) -> Tensor:
        """Return rows [N] for a pass that does not count: a group with rows, or the first row if all are dropped."""
        return next(iter(self.all()), torch.tensor([0]))

    def only(self, kept: Tensor) -> "Microbatches":
        """Return the same groups without the rows for which `kept` [B] is False; groups may become empty."""
        return Microbatches(tuple(tuple(group[kept[group]] for group in stratum) for stratum in self.strata))

    def shuffled(self, generator: torch.Generator) -> list[list[Tensor]]:
        """Return the minibatches of one epoch: each non-empty group is in exactly one."""
        orders = [torch.randperm(len(stratum), generator=generator).tolist() for stratum in self.strata]
        num_minibatches = len(self.strata[0])
        return [
            [stratum[order[m]] for stratum, order in zip(self.strata, orders, strict=True) if len(stratum[order[m]])]
            for m in range(num_minibatches)
        ]


def num_strata_needed(lengths: Sequence[int], num_minibatches: int, max_tokens: int, *, packs: bool = False) -> int:
    """Return the smallest number of strata that keeps every group within `max_tokens`, however its stratum is dealt.

    Args:
        lengths: tokens of each row.
        num_minibatches: groups in each stratum.
        max_tokens: of a pass.
        packs: whether the models compute nothing for padding.
    """
    rows_each = len(lengths) // num_minibatches
    ordered = sorted(lengths)

    def fits(start: int, end: int) -> bool:
        longest = ordered[: end * num_minibatches][start - end :]  # the largest group that may be dealt
        return within_budget(len(longest), longest[-1], sum(longest), max_tokens, packs=packs)

    for num_strata in range(1, rows_each):
        if all(fits(start, end) for start, end in _bounds(rows_each, num_strata)):
            return num_strata
    return rows_each


def cut_microbatches(
    lengths: Sequence[int], num_minibatches: int, num_strata: int, generator: torch.Generator
) -> Microbatches:
    """Sort rows by length, cut them into strata, and deal each stratum out at random to the minibatches.

    Args:
        lengths: tokens of each row; the number of rows is a multiple of `num_minibatches`.
        num_minibatches: groups in each stratum.
        num_strata: at most the number of rows per minibatch.
        generator: decides which rows of a stratum go together.

    Raises:
        ValueError: `num_minibatches` does not divide the rows.
    """
    if not lengths or len(lengths) % num_minibatches:
        raise ValueError(f"minibatches ({num_minibatches}) must divide the rows of a rollout ({len(lengths)})")
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    strata = []
    for start, end in _bounds(len(lengths) // num_minibatches, num_strata):
        rows = torch.tensor(order[start * num_minibatches : end * num_minibatches])
        dealt = rows[torch.randperm(len(rows), generator=generator)]
        strata.append(tuple(group.sort().values for group in dealt.chunk(num_minibatches)))
    return Microbatches(tuple(strata))


def _bounds(num_rows: int, num_parts: int) -> list[tuple[int, int]]:
    edges = [round(part * num_rows / num_parts) for part in range(num_parts + 1)]
    return list(pairwise(edges))
