"""What one judge says about all policies: its preferences between them, whichever kind of judge it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.judges.pairwise import Compared
from rlhf.evaluation.statistics.matrix import preferences_by_score

Floats = NDArray[np.float64]
Pair = tuple[str, str]
"""Two policies: 1 is a win of the first of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """One judge's preferences, on the rows that it judged: all answers to a prompt, or none."""

    preferences: Mapping[Pair, Floats]
    """[R] for each pair that was compared."""
    lengths: Mapping[str, Floats]
    """[R] tokens, by policy."""
    scores: Mapping[str, Floats] | None
    """[R] by policy; None for a judge of pairs."""
    rows: NDArray[np.bool_]
    """[all rows] True for those that are judged."""
    asked: Sequence[Compared] = ()
    """What a judge of pairs said in both orders."""

    def preference(self, ours: str, theirs: str) -> Floats | None:
        """Return how often ours wins; None for a pair that was not compared."""
        if (ours, theirs) in self.preferences:
            return self.preferences[ours, theirs]
        found = self.preferences.get((theirs, ours))
        return None if found is None else 1 - found


def pairs_of(names: Sequence[str], which: Literal["all", "first"] = "all") -> list[Pair]:
    """Return the pairs of policies to compare, the later one first: all, or each with the first policy."""
    return [(theirs, ours) for ours, theirs in combinations(names, 2) if which == "all" or ours == names[0]]


def verdicts_of_scores(
    scores: Mapping[str, Floats], lengths: Mapping[str, NDArray[np.int64]], samples_per_prompt: int
) -> Verdicts:
    """Return the preferences that scores [R] of every policy mean: the higher one wins.

    A prompt to which any answer of any policy has no score (NaN) is left out for all.
    """
    missing = np.any([np.isnan(each) for each in scores.values()], axis=0)
    rows = ~missing.reshape(-1, samples_per_prompt).any(axis=1).repeat(samples_per_prompt)
    kept = {name: each[rows] for name, each in scores.items()}
    pairs = pairs_of(list(kept)) if rows.any() else []
    won = {(ours, theirs): preferences_by_score(kept[ours], kept[theirs]) for ours, theirs in pairs}
    return Verdicts(preferences=won, lengths=_kept_lengths(lengths, rows), scores=kept, rows=rows)


def verdicts_of_pairs(compared: Mapping[Pair, Compared], lengths: Mapping[str, NDArray[np.int64]]) -> Verdicts:
    """Return the preferences of a judge of pairs."""
    rows = np.ones(len(next(iter(lengths.values()))), dtype=bool)
    won = {pair: each.preferences for pair, each in compared.items()}
    asked = list(compared.values())
    return Verdicts(preferences=won, lengths=_kept_lengths(lengths, rows), scores=None, rows=rows, asked=asked)


def _kept_lengths(lengths: Mapping[str, NDArray[np.int64]], rows: NDArray[np.bool_]) -> dict[str, Floats]:
    return {name: each[rows].astype(np.float64) for name, each in lengths.items()}
