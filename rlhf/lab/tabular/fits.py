"""Straight lines through measured points, with bootstrap intervals: the exponents of power and exponential laws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.lab.estimate import Estimate

NUM_RESAMPLES = 1000
LEVEL = 0.95
_INDICES_AT_ONCE = 4_000_000  # 32 MB of int64


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Least squares: y = intercept + slope * x."""

    slope: Tensor
    """[...]"""
    intercept: Tensor
    """[...]"""
    residual: Tensor
    """[...] root of the mean squared distance of y from the line."""


def fitted_line(x: Sequence[float], y: Tensor) -> Line:
    """Fit a line by least squares.

    slope = sum (x - mean x) y / sum (x - mean x)^2

    With x = log H and y = log m the slope is the exponent of m ~ H^slope; with x = H it is that of m ~ e^(slope H).

    Args:
        x: K places, not all equal.
        y: [..., K] float64; each row is fitted on its own.

    Raises:
        ValueError: fewer than two different places, or not as many places as points.
    """
    places = torch.tensor(x, dtype=torch.float64)
    if len(set(x)) < 2 or y.shape[-1:] != places.shape:
        raise ValueError(f"a line needs two different places and a point at each, found {list(x)} and {list(y.shape)}")
    centred = places - places.mean()
    slope = (y * centred).sum(-1) / centred.square().sum()
    intercept = y.mean(-1) - slope * places.mean()
    distance = y - intercept.unsqueeze(-1) - slope.unsqueeze(-1) * places
    return Line(slope=slope, intercept=intercept, residual=distance.square().mean(-1).sqrt())


def logarithms(x: Sequence[float]) -> list[float]:
    """Return the natural logarithms: the places of a power law."""
    return [math.log(place) for place in x]


def resampled_means(sample: Tensor, generator: torch.Generator, num_resamples: int = NUM_RESAMPLES) -> Tensor:
    """Return the means of resamples, drawn with replacement.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 6.

    Args:
        sample: [N, ...]; draws whole rows.
        generator: draws them.
        num_resamples: R.

    Returns:
        [R, ...], float64.
    """
    rows = sample.double()
    at_once = max(1, _INDICES_AT_ONCE // rows.numel())
    means = []
    for start in range(0, num_resamples, at_once):
        size = (min(at_once, num_resamples - start), len(rows))
        means.append(rows[torch.randint(len(rows), size, generator=generator)].mean(1))
    return torch.cat(means)


def estimate(value: float | Tensor, resamples: Tensor, level: float = LEVEL) -> Estimate:
    """Return a number with the percentile interval of its resamples [R]."""
    ends = torch.tensor([(1.0 - level) / 2.0, (1.0 + level) / 2.0], dtype=torch.float64)
    low, high = torch.quantile(resamples.double(), ends).tolist()
    return Estimate(value=float(value), low=low, high=high)


def mean_estimate(sample: Tensor, generator: torch.Generator, level: float = LEVEL) -> Estimate:
    """Return the mean of a sample [N] with its bootstrap interval."""
    return estimate(sample.double().mean(), resampled_means(sample, generator), level)
