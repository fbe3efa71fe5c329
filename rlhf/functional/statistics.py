"""Statistics that a step reports besides its losses."""

import torch
from torch import Tensor

from rlhf.functional.arguments import as_float, check_same_shape
from rlhf.functional.masking import masked_variance


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Compute the share of the variance of the returns that the values explain.

    1 - var(returns - values) / var(returns), biased variances

    Args:
        values: [B, T] V(s_t).
        returns: [B, T] what the values predict.
        mask: [B, T] bool, True on response tokens.

    Returns:
        Scalar, detached: 1 for a perfect value head (up to a constant), 0 for a constant one, below 0 for a worse one.
        0 if all returns are equal, since there is nothing to explain.

    Raises:
        ValueError: the shapes differ, or the mask is not bool.
    """
    check_same_shape(values=values, returns=returns, mask=mask)
    with torch.no_grad():
        total = masked_variance(returns, mask)
        unexplained = masked_variance(as_float(returns) - as_float(values), mask)
        is_constant = total == 0
        explained = 1.0 - unexplained / torch.where(is_constant, torch.ones_like(total), total)
        return torch.where(is_constant, torch.zeros_like(total), explained)
