"""Win rates of every policy against every other."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.statistics.bootstrap import Interval, mean_interval
from rlhf.evaluation.statistics.resampling import by_prompt

Floats = NDArray[np.float64]


def preferences_by_score(ours: Floats, theirs: Floats) -> Floats:
    """Return 1 where the first score is above the second, 0 where it is below, 1/2 where they are equal: [R]."""
    return np.asarray((ours > theirs) + 0.5 * (ours == theirs), dtype=np.float64)


def win_rate_matrix(
    names: Sequence[str],
    preferences: Mapping[tuple[str, str], Floats],
    *,
    seed: int,
    samples_per_prompt: int = 1,
) -> dict[str, dict[str, Interval]]:
    """Return for each policy its win rates against the others it was compared with.

    A rate and its mirror image add up to 1, and so do the ends of their intervals. Every interval draws the same
    resamples of the prompts.

    Args:
        names: of the policies, in the order of rows and columns.
        preferences: [N * samples_per_prompt] for pairs of policies: 1 where the first of the pair wins.
        seed: of the resamples.
        samples_per_prompt: rows of one prompt; they are drawn together.
    """
    found: dict[str, dict[str, Interval]] = {name: {} for name in names}
    for ours in names:
        for theirs in names:
            if (ours, theirs) in preferences:
                won = by_prompt(preferences[ours, theirs], samples_per_prompt)
                rate = mean_interval(won, generator=np.random.default_rng(seed))
                found[ours][theirs] = rate
                found[theirs][ours] = Interval(1 - rate.mean, 1 - rate.high, 1 - rate.low)
    return {ours: {theirs: found[ours][theirs] for theirs in names if theirs in found[ours]} for ours in names}
