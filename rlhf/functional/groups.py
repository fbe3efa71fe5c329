"""Advantages without a critic: each response is compared with the other responses to its prompt."""

import torch
from torch import Tensor

from rlhf.functional.advantages import response_return
from rlhf.functional.masking import keep

# TRL's GRPO divides by the standard deviation + 1e-4; here epsilon is added under the root, as in whitening.
_VARIANCE_EPS = 1e-8


def rloo(rewards: Tensor, mask: Tensor, gamma: float, num_samples: int) -> Tensor:
    """Subtract from each response's return the mean return of the other responses to its prompt.

    Psi_t = R_i - 1/(K - 1) * sum_{j != i} R_j,  R the return of a whole response

    Unbiased, because the baseline is independent of response i.

    Source: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free"; for language models Ahmadian et al.
    2024, arXiv:2402.14740, equation 7. The KL penalty is part of R.

    Args:
        rewards: [B, T] per token, KL penalty included; the K rows of a prompt are adjacent.
        mask: [B, T] bool, True on response tokens, which are contiguous within a row.
        gamma: discount per token, in [0, 1].
        num_samples: K, responses to a prompt, at least 2.

    Returns:
        [B, T], the same number on every kept token of a row, 0 where the mask is False.

    Raises:
        ValueError: the shapes differ, the mask is not bool or has a gap, `gamma` is outside [0, 1], or B is not a
            multiple of K.
    """
    returns = _grouped(rewards, mask, gamma, num_samples)
    others = (returns.sum(1, keepdim=True) - returns) / (num_samples - 1)
    return _spread(returns - others, mask)


def group_normalised(rewards: Tensor, mask: Tensor, gamma: float, num_samples: int) -> Tensor:
    """Centre and scale the returns of the responses to a prompt, as GRPO does.

    Psi_t = (R_i - mean_j R_j) / sqrt(var_j R_j + 1e-8), var biased

    Not the policy gradient of the return: dividing by the standard deviation makes hard and easy prompts count
    alike. With K = 2 it is the sign of R_1 - R_2: the expected gradient is that of P(win) - P(loss) against a frozen
    copy of the policy.

    Source: Shao et al. 2024, arXiv:2402.03300, section 4.1.2. There the KL enters the loss; here it is part of R.

    Args:
        rewards: [B, T] per token, KL penalty included; the K rows of a prompt are adjacent.
        mask: [B, T] bool, True on response tokens, which are contiguous within a row.
        gamma: discount per token, in [0, 1].
        num_samples: K, responses to a prompt, at least 2.

    Returns:
        [B, T], the same number on every kept token of a row, 0 where the mask is False and in groups of equal returns.

    Raises:
        ValueError: as `rloo`.
    """
    returns = _grouped(rewards, mask, gamma, num_samples)
    # Subtracting one of them first makes equal returns exactly 0: the mean of equal numbers is rounded.
    shifted = returns - returns[:, :1]
    centred = shifted - shifted.mean(1, keepdim=True)
    return _spread(centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + _VARIANCE_EPS), mask)


def _grouped(rewards: Tensor, mask: Tensor, gamma: float, num_samples: int) -> Tensor:
    """Return [B / K, K] returns."""
    if num_samples < 2 or len(rewards) % num_samples:
        raise ValueError(
            f"num_samples must be at least 2 and divide the rows, found {num_samples} for {len(rewards)} rows"
        )
    return response_return(rewards, mask, gamma).view(-1, num_samples)


def _spread(grouped: Tensor, mask: Tensor) -> Tensor:
    return keep(grouped.reshape(-1, 1).expand(mask.shape), mask)
