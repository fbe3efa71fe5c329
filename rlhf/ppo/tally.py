"""The numbers of an update: stacked on the device by each microbatch, read at once, added up over the minibatch."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

SUMS = ("policy_loss", "value_loss", "entropy", "clipped", "value_clipped", "approx_kl", "ratio", "ratio_square")
"""An update sums these over real tokens; all but the two losses are then divided by the number of tokens."""
SHARES = ("clipped", "value_clipped", "approx_kl")
"""Those of them that a microbatch's losses give as a mean over its tokens."""
LARGEST = ("ratio_max", "ratio_deviation")
"""Of these the largest counts."""
NAMES = (*SUMS, *LARGEST)
"""The numbers of a microbatch, in order."""


def stacked(numbers: Mapping[str, Tensor]) -> Tensor:
    """Return the numbers of a microbatch, scalars by `NAMES`, as one float32 tensor without a gradient."""
    return torch.stack([numbers[name].detach().float() for name in NAMES])


def largest(numbers: Tensor) -> Tensor:
    """Return the largest of numbers [N], all at least 0; of none, where a pass is not counted, 0."""
    return numbers.max() if len(numbers) else numbers.sum()


def tally(counts: Sequence[int], read: Sequence[float]) -> tuple[list[float], dict[str, float]]:
    """Return the sums of a minibatch by the order of `SUMS`, and its largest numbers by name, on this process.

    Args:
        counts: tokens of each microbatch.
        read: what `stacked` returned of each, one after the other; more may follow.
    """
    named = [dict(zip(NAMES, read[len(NAMES) * place :], strict=False)) for place in range(len(counts))]
    sums = [
        sum(each[name] * (count if name in SHARES else 1) for count, each in zip(counts, named, strict=True))
        for name in SUMS
    ]
    return sums, {name: max([0.0, *(each[name] for each in named)]) for name in LARGEST}


def means_of(sums: Sequence[float], num_tokens: float) -> dict[str, float]:
    """Return the losses of the global minibatch, and the means over its tokens of the other `SUMS`."""
    totals = dict(zip(SUMS, sums, strict=True))
    return {name: total if name.endswith("_loss") else total / num_tokens for name, total in totals.items()}
