"""Pairs that teach a reward model to score an unfinished response below the same response finished."""

import random
from collections.abc import Sequence
from itertools import takewhile

from rlhf.data.records import Pair


def with_unfinished(pairs: Sequence[Pair], fraction: float, seed: int) -> list[Pair]:
    """Replace the rejected text of a share of the pairs with the chosen one, cut short.

    A reward model that has only seen finished texts scores unfinished ones arbitrarily, often too high. The policy
    exploits that: it stops ending its responses. The cut is uniform over the places after what both texts share (the
    prompt) and before the last token (the EOS); a pair without such a place does not change.

    Args:
        pairs: human preferences.
        fraction: probability of replacing a pair, drawn for each pair.
        seed: of the draws; the same pairs, fraction and seed give the same result.
    """
    rng = random.Random(f"unfinished-{seed}")  # noqa: S311  # reproducible draws, not a secret
    return [_cut(pair, rng) if rng.random() < fraction else pair for pair in pairs]


def _cut(pair: Pair, rng: random.Random) -> Pair:
    both = zip(pair.chosen_ids, pair.rejected_ids, strict=False)
    shared = sum(1 for _ in takewhile(lambda ids: ids[0] == ids[1], both))
    if shared + 1 >= len(pair.chosen_ids):
        return pair
    end = rng.randint(shared + 1, len(pair.chosen_ids) - 1)
    return Pair(chosen_ids=pair.chosen_ids, rejected_ids=pair.chosen_ids[:end], margin=0.0)
