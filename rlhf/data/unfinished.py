"""Pairs that teach a reward model what an unfinished response is worth: less than the same one finished."""

import random
from collections.abc import Sequence
from itertools import takewhile

from rlhf.data.records import Pair


def with_unfinished(pairs: Sequence[Pair], fraction: float, seed: int) -> list[Pair]:
    """Replace the rejected text of a share of the pairs by the chosen one, cut short.

    A reward model that has only seen finished texts reads one that breaks off as it likes, often too kindly, and a
    policy finds that out: it stops ending its responses. The cut lies after what both texts share (the prompt) and
    before the last token (the EOS), each place equally probable; a pair without such a place stays as it is.

    Args:
        pairs: human preferences.
        fraction: share of pairs that are replaced, each by a draw of its own.
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
