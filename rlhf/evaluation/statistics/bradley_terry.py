"""A ranking of several policies from their comparisons: the Bradley-Terry model."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.evaluation.statistics.bootstrap import Interval
from rlhf.evaluation.statistics.resampling import by_prompt, draws, percentile_interval

NUM_RESAMPLES = 1_000
PRIOR = 0.5
"""Wins added to both sides of every pair that was compared: a policy that won nothing keeps a finite strength."""
MAX_STEPS = 10_000
TOLERANCE = 1e-9

Floats = NDArray[np.float64]


def strengths(wins: ArrayLike, *, prior: float = 0.0) -> Floats:
    """Return log strengths [..., M], of which the first is 0: P(i beats j) = sigmoid(strength_i - strength_j).

    They maximise the likelihood, by the MM algorithm: p_i <- W_i / sum_j n_ij / (p_i + p_j), where W_i are all wins of
    i and n_ij the comparisons of i and j. Source: Hunter 2004, "MM algorithms for generalized Bradley-Terry models",
    equation 3.

    Args:
        wins: [..., M, M] how often the row beat the column; a tie is half a win for both. The diagonal is not read.
        prior: wins added to both sides of every pair that was compared.

    Raises:
        ValueError: without a prior some policy won or lost everything, so that no maximum exists.
    """
    given = np.asarray(wins, dtype=np.float64)
    size = given.shape[-1]
    given = np.where(np.eye(size, dtype=bool), 0.0, given)
    numbers = given + given.swapaxes(-1, -2)
    given = given + prior * (numbers > 0)
    numbers = given + given.swapaxes(-1, -2)
    if not _is_connected(given):
        raise ValueError("some policies never lost, or never won, against the others: no strength is finite")
    total = given.sum(axis=-1)
    p = np.full(total.shape, 1.0 / size)
    for _ in range(MAX_STEPS):
        new = total / (numbers / (p[..., :, None] + p[..., None, :])).sum(axis=-1)
        new /= new.sum(axis=-1, keepdims=True)
        moved = np.abs(np.log(new) - np.log(p)).max()
        p = new
        if moved < TOLERANCE:
            break
    logs = np.log(p)
    return np.asarray(logs - logs[..., :1])


def ranking(
    names: Sequence[str],
    preferences: Mapping[tuple[str, str], Floats],
    *,
    generator: np.random.Generator,
    samples_per_prompt: int = 1,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Interval]:
    """Return the log strength of every policy, the first one's being 0, with intervals over resampled prompts.

    Args:
        names: of the policies.
        preferences: [N * samples_per_prompt] for the pairs that were compared: 1 where the first of the pair wins.
        generator: draws the resamples.
        samples_per_prompt: rows of one prompt.
        num_resamples: of the intervals.
    """
    place = {name: number for number, name in enumerate(names)}
    pairs = [(place[ours], place[theirs]) for ours, theirs in preferences]
    won = np.stack([by_prompt(each, samples_per_prompt) for each in preferences.values()])
    num_prompts = won.shape[1]
    counts = np.concatenate([np.ones((1, num_prompts)), draws(num_prompts, num_resamples, generator)])
    totals = counts @ won.T
    wins = np.zeros((len(counts), len(names), len(names)))
    for column, (ours, theirs) in enumerate(pairs):
        wins[:, ours, theirs] = totals[:, column]
        wins[:, theirs, ours] = num_prompts - totals[:, column]
    found = strengths(wins, prior=PRIOR)
    return {name: percentile_interval(found[0, number], found[1:, number]) for name, number in place.items()}


def _is_connected(wins: Floats) -> bool:
    """Whether every policy is reached from every other by wins: Hunter's assumption 1, for all leading entries."""
    size = wins.shape[-1]
    reached = (wins > 0) | np.eye(size, dtype=bool)
    for middle in range(size):
        reached = reached | (reached[..., :, middle, None] & reached[..., None, middle, :])
    return bool(reached.all())
