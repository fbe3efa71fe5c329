"""Bootstrap intervals of a mean, of a paired difference and of a win rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_RESAMPLES = 10_000
LEVEL = 0.95
_INDICES_AT_ONCE = 4_000_000  # 32 MB of int64

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the percentile interval of its resamples."""

    mean: float
    low: float
    high: float


def mean_interval(
    values: ArrayLike,
    *,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Return the mean of `values` [N] with the percentile interval of the means of `num_resamples` resamples.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3.
    """
    sample = _checked(values, "values")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, found {num_resamples}")
    means = _resampled_means(sample, generator, num_resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high))


def mean_difference_interval(
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Return the mean of ours - theirs; row i of both answers prompt i, and resampling draws prompts, keeping pairs."""
    first, second = _paired(ours, theirs)
    return mean_interval(first - second, generator=generator, num_resamples=num_resamples, level=level)


def win_rate_interval(
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Return the share of prompts on which ours scores above theirs, with its paired interval; a tie counts 1/2."""
    first, second = _paired(ours, theirs)
    wins = (first > second) + 0.5 * (first == second)
    return mean_interval(wins, generator=generator, num_resamples=num_resamples, level=level)


def _resampled_means(sample: Floats, generator: np.random.Generator, num_resamples: int) -> Floats:
    """Return [num_resamples] means; drawn in blocks, so that memory does not grow with the number of resamples."""
    rows = max(1, _INDICES_AT_ONCE // len(sample))
    sizes: Sequence[int] = [min(rows, num_resamples - start) for start in range(0, num_resamples, rows)]
    blocks = [sample[generator.integers(0, len(sample), size=(size, len(sample)))].mean(axis=1) for size in sizes]
    return np.concatenate(blocks)


def _paired(ours: ArrayLike, theirs: ArrayLike) -> tuple[Floats, Floats]:
    first, second = _checked(ours, "ours"), _checked(theirs, "theirs")
    if len(first) != len(second):
        raise ValueError(f"a paired comparison needs one score per prompt on each side: {len(first)} and {len(second)}")
    return first, second


def _checked(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"{name} must be a list of at least one number, found shape {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, found {array[~np.isfinite(array)][0]} at row {_first_bad(array)}")
    return array


def _first_bad(array: Floats) -> int:
    return int(np.flatnonzero(~np.isfinite(array))[0])
