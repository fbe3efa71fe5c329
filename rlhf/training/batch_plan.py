"""Which items an optimizer step sees, and how they are split into microbatches: functions of the step alone."""

import random
from collections.abc import Sequence

from rlhf.functional.token_budget import token_budget_batches


class BatchPlan:
    """A reproducible order of items over epochs, in global batches.

    The step determines the batch, so a resumed run needs no data state, and every process knows the whole batch.
    """

    def __init__(
        self, lengths: Sequence[int], *, batch_size: int, microbatch_tokens: int, seed: int, packs: bool = False
    ) -> None:
        """Describe the order.

        Args:
            lengths: tokens of each item.
            batch_size: items of a global batch; the last of an epoch may be smaller.
            microbatch_tokens: of one forward pass.
            seed: of the permutations.
            packs: whether the model computes nothing for padding.
        """
        if not lengths:
            raise ValueError("a plan needs at least one item")
        self._lengths = lengths
        self._batch_size = batch_size
        self._microbatch_tokens = microbatch_tokens
        self._packs = packs
        self.seed = seed
        self._order: tuple[int, list[int]] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Optimizer steps of one pass over the items."""
        return -(-len(self._lengths) // self._batch_size)

    def epoch(self, num_batches: int) -> float:
        """Return the passes over the data after `num_batches` batches."""
        return num_batches / self.batches_per_epoch

    def batch(self, index: int) -> list[int]:
        """Return the items of batch `index`, counted across epochs."""
        epoch, place = divmod(index, self.batches_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, _permutation(len(self._lengths), self.seed, epoch))
        return self._order[1][place * self._batch_size : (place + 1) * self._batch_size]

    def num_tokens(self, items: Sequence[int]) -> int:
        """Return the tokens of items."""
        return sum(self._lengths[item] for item in items)

    def microbatches(self, items: Sequence[int]) -> list[list[int]]:
        """Group items, sorted by length, so that a pass stays within the token budget; a single row may exceed it."""
        lengths = [self._lengths[item] for item in items]
        cut = token_budget_batches(lengths, self._microbatch_tokens, packs=self._packs)
        return [[items[place] for place in places] for places in cut]


def _permutation(num_items: int, seed: int, epoch: int) -> list[int]:
    order = list(range(num_items))
    random.Random(f"{seed}-{epoch}").shuffle(order)  # noqa: S311  # reproducible order, not a secret
    return order
