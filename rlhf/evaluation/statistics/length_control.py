"""The win rate at equal length: how often a policy would win if its answers were as long as the other's."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.evaluation.statistics.bootstrap import Interval
from rlhf.evaluation.statistics.resampling import draws, percentile_interval

NUM_RESAMPLES = 2_000
RIDGE = 1e-3
"""A prior so weak that it matters only where a policy wins, or loses, everything: without it the fit would diverge."""
MAX_STEPS = 50
_WEIGHTS_AT_ONCE = 2_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A win rate at equal length."""

    rate: Interval
    slope: float
    """Log odds of winning for each unit of tanh(length difference over its standard deviation)."""


def length_controlled(
    preferences: ArrayLike,
    length_differences: ArrayLike,
    *,
    generator: np.random.Generator,
    samples_per_prompt: int = 1,
    num_resamples: int = NUM_RESAMPLES,
) -> LengthControlled:
    """Fit log odds of a win = theta + phi tanh(d / std(d)), and return sigmoid(theta), the win rate where d is 0.

    d is how much longer the first policy's answer is. The fit is a logistic regression on preferences in [0, 1]; a tie
    is 1/2. Source: Dubois et al. 2024, arXiv:2404.04475, section 3, AlpacaEval 2. Left out: its third term, the
    difficulty of an instruction, which needs many models on the same instructions.

    Args:
        preferences: [N * samples_per_prompt] 1 where the first policy wins, 0 where it loses, 1/2 for a tie.
        length_differences: [N * samples_per_prompt] tokens of its answer less those of the other's.
        generator: draws the resamples of prompts.
        samples_per_prompt: rows that belong to one prompt; they are drawn together.
        num_resamples: of the interval.

    Raises:
        ValueError: the two have different lengths, or do not divide into prompts.
    """
    wins, differences = (np.asarray(given, dtype=np.float64) for given in (preferences, length_differences))
    if wins.ndim != 1 or wins.shape != differences.shape or not len(wins) or len(wins) % samples_per_prompt:
        raise ValueError(f"expected as many preferences as length differences, {wins.shape} and {differences.shape}")
    spread = differences.std()
    features = np.stack([np.ones_like(wins), np.tanh(differences / spread) if spread > 0 else np.zeros_like(wins)], 1)
    theta, phi = _fitted(features, wins, np.ones((1, len(wins))))[0]
    counts = draws(len(wins) // samples_per_prompt, num_resamples, generator).repeat(samples_per_prompt, axis=1)
    rows = max(1, _WEIGHTS_AT_ONCE // len(wins))
    blocks = [_fitted(features, wins, counts[start : start + rows])[:, 0] for start in range(0, num_resamples, rows)]
    return LengthControlled(percentile_interval(float(_sigmoid(theta)), _sigmoid(np.concatenate(blocks))), float(phi))


def _fitted(features: Floats, wins: Floats, weights: Floats) -> Floats:
    """Return the coefficients [B, 2] of weighted logistic regressions, by Newton's method.

    Args:
        features: [N, 2]
        wins: [N] in [0, 1]
        weights: [B, N] one regression for each row
    """
    coefficients = np.zeros((len(weights), 2))
    products = features[:, :, None] * features[:, None, :]
    for _ in range(MAX_STEPS):
        odds = np.clip(coefficients @ features.T, -30, 30)
        expected = _sigmoid(odds)
        gradient = (weights * (wins - expected)) @ features - RIDGE * coefficients
        curvature = np.einsum("bn,nij->bij", weights * expected * (1 - expected), products) + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        # Far from the optimum a whole step may overshoot; log odds never need to move by more than 2 at once.
        coefficients += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    return coefficients


def _sigmoid(odds: ArrayLike) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.asarray(odds, dtype=np.float64))))
