"""How a score follows the distance from the start: the laws of over-optimisation, and the best of n over subsets."""

from dataclasses import dataclass
from math import comb
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.evaluation.statistics.bootstrap import Interval
from rlhf.evaluation.statistics.resampling import draws, percentile_interval

NUM_RESAMPLES = 1_000
SMALLEST = 1e-6
"""Nats: a KL below, which a noisy estimate may have, is taken for this."""

Floats = NDArray[np.float64]
Kind = Literal["best_of", "ppo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A fitted law, with intervals over resampled prompts."""

    kind: Kind
    alpha: Interval
    beta: Interval
    turnover_kl: float | None
    """Nats at which the gain is highest; None where the fit never turns."""


def fitted_law(
    kind: Kind, kl: ArrayLike, gains: ArrayLike, *, generator: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Law:
    """Fit the gain of a score over the start by least squares, with d = sqrt(KL).

        best of n: gain = d (alpha - beta d)          PPO: gain = d (alpha - beta log d)

    Source: Gao, Schulman and Hilton 2022, arXiv:2210.10760, section 3.

    Args:
        kind: which law.
        kl: [P, N] nats of each of P points on each of N prompts.
        gains: [P, N] score less that of the start on the same prompt.
        generator: draws the resamples of prompts.
        num_resamples: of the intervals.

    Raises:
        ValueError: fewer than two points are away from the start.
    """
    distances, rises = (np.asarray(given, dtype=np.float64) for given in (kl, gains))
    if distances.ndim != 2 or distances.shape != rises.shape or np.sum(distances.mean(1) > SMALLEST) < 2:
        raise ValueError("a law needs at least two points away from the start, with a KL and a gain for every prompt")
    num_prompts = distances.shape[1]
    weights = np.concatenate([np.ones((1, num_prompts)), draws(num_prompts, num_resamples, generator)]) / num_prompts
    fits = np.stack([_least_squares(kind, distances @ each, rises @ each) for each in weights])
    alpha, beta = (percentile_interval(float(fits[0, place]), fits[1:, place]) for place in (0, 1))
    return Law(kind=kind, alpha=alpha, beta=beta, turnover_kl=_turnover(kind, alpha.mean, beta.mean))


def best_of_expected(proxy: ArrayLike, scores: ArrayLike, n: int) -> Floats:
    """Return for each prompt the expected score [N] of the answer that the proxy likes best among n, over all subsets.

    With the answers in rising order of the proxy, the i-th of M is the best of C(i - 1, n - 1) of C(M, n) subsets.
    Answers that the proxy scores alike share their chances. Source: Nakano et al. 2021, arXiv:2112.09332, appendix I.

    Args:
        proxy: [N, M] scores that choose.
        scores: [N, M] scores of the chosen one.
        n: answers of a subset, at most M.
    """
    choosing, measured = (np.asarray(given, dtype=np.float64) for given in (proxy, scores))
    number = choosing.shape[1]
    if not 1 <= n <= number:
        raise ValueError(f"n must be from 1 to {number}, found {n}")
    chances = np.array([comb(place, n - 1) / comb(number, n) for place in range(number)])
    expected = np.empty(len(choosing))
    for row, (chosen, known) in enumerate(zip(choosing, measured, strict=True)):
        order = np.argsort(chosen, kind="stable")
        _, group = np.unique(chosen[order], return_inverse=True)
        means = np.bincount(group, known[order]) / np.bincount(group)
        expected[row] = chances @ means[group]
    return expected


def _least_squares(kind: Kind, kl: Floats, gains: Floats) -> Floats:
    away = kl > SMALLEST
    return np.asarray(np.linalg.lstsq(_features(kind, kl[away]), gains[away], rcond=None)[0], dtype=np.float64)


def _features(kind: Kind, kl: Floats) -> Floats:
    d = np.sqrt(np.maximum(kl, SMALLEST))
    return np.stack([d, -d * (d if kind == "best_of" else np.log(d))], axis=-1)


def _turnover(kind: Kind, alpha: float, beta: float) -> float | None:
    """Return the KL at which the law's derivative is 0, where it is a maximum."""
    if beta <= 0:
        return None
    if kind == "best_of":
        return float((alpha / (2 * beta)) ** 2) if alpha > 0 else None
    exponent = 2 * (alpha / beta - 1)
    return float(np.exp(exponent)) if exponent < 700 else None  # beyond, a float has no room
