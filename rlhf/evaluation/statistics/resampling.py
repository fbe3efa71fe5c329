"""Resamples of prompts: how often each prompt is drawn, and what follows for means over prompts."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.evaluation.statistics.bootstrap import LEVEL, Interval

Floats = NDArray[np.float64]


def by_prompt(values: ArrayLike, samples_per_prompt: int) -> Floats:
    """Return the mean over the answers to each prompt: [N * samples_per_prompt] -> [N].

    Every prompt has as many answers, so a bootstrap of these means draws whole prompts with all their answers: a
    cluster bootstrap. Answers to one prompt resemble each other: drawn one by one, intervals would be too short.

    Raises:
        ValueError: the values do not divide into prompts.
    """
    array = np.asarray(values, dtype=np.float64)
    if samples_per_prompt < 1 or array.ndim != 1 or len(array) % samples_per_prompt:
        raise ValueError(f"{array.shape} values are not {samples_per_prompt} for each prompt")
    return np.asarray(array.reshape(-1, samples_per_prompt).mean(axis=1))


def draws(num_prompts: int, num_resamples: int, generator: np.random.Generator) -> Floats:
    """Return how often each resample holds each prompt [num_resamples, num_prompts]; a row sums to num_prompts."""
    shares = np.full(num_prompts, 1.0 / num_prompts)
    return generator.multinomial(num_prompts, shares, size=num_resamples).astype(np.float64)


def percentile_interval(estimate: float, resampled: ArrayLike, level: float = LEVEL) -> Interval:
    """Return an estimate with the percentile interval of its resamples."""
    low, high = np.quantile(np.asarray(resampled, dtype=np.float64), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high))
