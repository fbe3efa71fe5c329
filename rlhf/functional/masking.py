"""Sums, means and whitening over the positions that count.

A masked position may hold anything, inf and NaN included: it reaches neither a result nor a gradient.
"""

import torch
from torch import Tensor

from rlhf.functional.arguments import as_float, check_same_shape

# lm-human-preferences, lm_human_preferences/utils/core.py, `whiten`; keeps a nearly constant batch from exploding.
_VARIANCE_EPS = 1e-8


def keep(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` in float32 (float64 stays) with 0 where the mask is False.

    Args:
        values: any shape.
        mask: same shape, bool, True on positions that count.

    Returns:
        A new tensor of the same shape.

    Raises:
        ValueError: the shapes differ, or the mask is not bool.
    """
    check_same_shape(values=values, mask=mask)
    floats = as_float(values)
    return torch.where(mask, floats, torch.zeros_like(floats))


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum the positions that count.

    Args:
        values: any shape.
        mask: same shape, bool, True on positions that count.

    Returns:
        Scalar, 0 where nothing counts.

    Raises:
        ValueError: the shapes differ, or the mask is not bool.
    """
    return keep(values, mask).sum()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average over the positions that count.

    mean = sum_i m_i * x_i / sum_i m_i

    Args:
        values: any shape.
        mask: same shape, bool, True on positions that count.

    Returns:
        Scalar, 0 where nothing counts.

    Raises:
        ValueError: the shapes differ, or the mask is not bool.
    """
    return masked_sum(values, mask) / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Compute the biased variance over the positions that count.

    var = sum_i m_i * (x_i - mean)^2 / sum_i m_i

    Args:
        values: any shape.
        mask: same shape, bool, True on positions that count.

    Returns:
        Scalar, exactly 0 where all values that count are equal, or where nothing counts.

    Raises:
        ValueError: the shapes differ, or the mask is not bool.
    """
    return masked_mean(_centred(values, mask).square(), mask)


def whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Shift to mean 0 and scale to variance 1 over all positions that count.

    y = (x - mean) / sqrt(var + 1e-8), var biased

    Source: Huang et al. 2024, arXiv:2403.17031 (biased variance, as in lm-human-preferences).

    Args:
        values: any shape.
        mask: same shape, bool, True on positions that count.

    Returns:
        Same shape, 0 where the mask is False; 0 everywhere if all values that count are equal.

    Raises:
        ValueError: the shapes differ, or the mask is not bool.
    """
    centred = _centred(values, mask)
    return centred * torch.rsqrt(masked_mean(centred.square(), mask) + _VARIANCE_EPS)


def _centred(values: Tensor, mask: Tensor) -> Tensor:
    """Subtract the mean of the positions that count; 0 elsewhere."""
    kept = keep(values, mask)
    if kept.numel() == 0:
        return kept
    # Subtracting the smallest value first makes equal values exactly 0. The mean of many equal numbers is rounded, and
    # whitening would blow the rounding error up to 1.
    smallest = torch.where(mask, kept, torch.full_like(kept, torch.inf)).amin().detach()
    shifted = keep(kept - smallest, mask)
    return keep(shifted - masked_mean(shifted, mask), mask)
