"""How much minibatch gradients scatter, from the inner products between them alone.

M gradients of independent minibatches are rows of a matrix; its Gram matrix [M, M] holds every length and angle used
here, so the gradients themselves need not be kept.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

BLOCK = 2**20
"""Columns to convert to float64 at once."""


def inner_products(ours: Tensor, theirs: Tensor) -> Floats:
    """Return [M, N] inner products of the rows of two matrices [M, D] and [N, D], summed in float64."""
    total = torch.zeros(len(ours), len(theirs), dtype=torch.float64)
    for left, right in zip(ours.split(BLOCK, 1), theirs.split(BLOCK, 1), strict=True):
        total += left.double() @ right.double().T
    return total.numpy()


def signal_to_noise(gram: Floats, counts: Floats | None = None) -> Floats:
    """Estimate |G|^2 / tr(Sigma): G the expected gradient of a minibatch, Sigma the covariance of its gradient.

    |G|^2 is estimated by the mean of g_i . g_j over i != j, and tr(Sigma) by the mean of |g_i|^2 minus that: both are
    unbiased, while the squared length of the mean gradient would exceed |G|^2 by tr(Sigma) / M. The estimate may be
    negative. It grows in proportion to the episodes of a minibatch.

    Source: its inverse, in minibatches, is the simple noise scale of McCandlish et al. 2018, arXiv:1812.06162,
    equation 2.9 and appendix A.1 (there from two sizes of batches; here from pairs).

    Args:
        gram: [M, M] inner products of the minibatch gradients.
        counts: [R, M] how often each minibatch was drawn in each of R resamples; None for once each, R = 1. Two copies
            of one minibatch are no pair.

    Returns:
        [R] ratios.
    """
    drawn = np.ones((1, len(gram))) if counts is None else counts
    squares = np.diag(gram)
    pairs = np.einsum("rm,mn,rn->r", drawn, gram, drawn) - (drawn**2) @ squares
    signal = pairs / (drawn.sum(1) ** 2 - (drawn**2).sum(1))
    noise = drawn @ squares / drawn.sum(1) - signal
    return np.asarray(signal / noise)


def resample_counts(num: int, num_resamples: int, generator: np.random.Generator) -> Floats:
    """Return [R, M] how often each of M minibatches occurs in each of R bootstrap resamples of size M."""
    return generator.multinomial(num, np.full(num, 1 / num), size=num_resamples).astype(np.float64)


def cosines_to_rest(ours: Floats, cross: Floats, theirs: Floats) -> Floats:
    """Return [M] the cosine of each of our minibatch gradients to the sum of their gradients of all the others.

    Args:
        ours: [M, M] inner products of our gradients.
        cross: [M, M] of our gradients (rows) with theirs (columns), on the same minibatches.
        theirs: [M, M] of theirs.
    """
    dots = cross.sum(1) - np.diag(cross)
    rest = theirs.sum() - 2 * theirs.sum(1) + np.diag(theirs)
    return np.asarray(dots / np.sqrt(np.diag(ours) * rest))


def cosine_of_sums(ours: Floats, cross: Floats, theirs: Floats) -> float:
    """Return the cosine between the sum of our gradients and the sum of theirs, over all minibatches."""
    return float(cross.sum() / np.sqrt(ours.sum() * theirs.sum()))


def cosine_of_halves(gram: Floats, num_splits: int, generator: np.random.Generator) -> float:
    """Return the cosine between the sums of two disjoint halves, the mean over random splits."""
    half, cosines = len(gram) // 2, []
    for _ in range(num_splits):
        order = generator.permutation(len(gram))
        one, other = order[:half], order[half : 2 * half]
        dot = gram[np.ix_(one, other)].sum()
        cosines.append(dot / np.sqrt(gram[np.ix_(one, one)].sum() * gram[np.ix_(other, other)].sum()))
    return float(np.mean(cosines))


def merged(gram: Floats, size: int) -> Floats:
    """Return [M // size, M // size] the inner products of sums of `size` consecutive minibatch gradients.

    Minibatches left over at the end are dropped.
    """
    num = len(gram) // size
    kept = gram[: num * size, : num * size]
    return np.asarray(kept.reshape(num, size, num, size).sum((1, 3)))
