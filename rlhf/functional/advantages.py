"""Per-token rewards from scores and KL, and Psi_t, the weight of each token's score function, from rewards and values.

The ladder of the policy gradient, each rung built to have less variance than the one before: the return of the
whole response, the reward-to-go, the reward-to-go minus a baseline, and GAE. With discount 1 the expected gradient is
the same on every rung, except that GAE with lambda below 1 is biased unless the critic is exact. `groups.py` holds
the estimators without a critic.
"""

import torch
from torch import Tensor

from rlhf.functional.arguments import as_float, check_same_shape
from rlhf.functional.masking import keep


def shaped_rewards(scores: Tensor, token_scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Combine score, token scores and the KL penalty into one reward per token.

    r_t = token_score_t - kl_coef * kl_t + [t is the last kept token] * score

    Source: Ziegler et al. 2019, arXiv:1909.08593, equation 2, spread over the tokens. The score is added at the last
    kept token itself (the EOS, or the last token of a cut response); arXiv:2403.17031 adds it one position later.

    Args:
        scores: [B] of whole responses, before KL.
        token_scores: [B, T] of single tokens, 0 where no reward scores the token.
        kl: [B, T] nats, the estimate at each token.
        mask: [B, T] bool, True on response tokens.
        kl_coef: reward units per nat.

    Returns:
        [B, T] rewards, 0 where the mask is False. A row without a kept token has no action to reward: all 0.

    Raises:
        ValueError: the shapes differ, or the mask is not bool.
    """
    check_same_shape(token_scores=token_scores, kl=kl, mask=mask)
    if mask.ndim != 2 or scores.shape != mask.shape[:1]:
        raise ValueError(f"scores must be [B] and mask [B, T], found {list(scores.shape)} and {list(mask.shape)}")
    # Counting kept tokens from the right, the last one has count 1.
    is_last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    at_last = keep(as_float(scores).unsqueeze(1).expand(mask.shape), is_last)
    return keep(as_float(token_scores) - kl_coef * as_float(kl), mask) + at_last


def response_return(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Sum the rewards of each response.

    R = sum_k gamma^k * r_{first + k}, where `first` is the first kept token

    Args:
        rewards: [B, T] per token, KL penalty included.
        mask: [B, T] bool, True on response tokens, which are contiguous within a row.
        gamma: discount per token, in [0, 1].

    Returns:
        [B] returns, 0 for a row without a kept token.

    Raises:
        ValueError: the shapes differ, the mask is not bool or has a gap, or `gamma` is outside [0, 1].
    """
    to_go = reward_to_go(rewards, mask, gamma)
    first = mask.int().argmax(1, keepdim=True)
    return to_go.gather(1, first).squeeze(1)


def trajectory_return(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Weight every token by the return of its whole response: the first rung, REINFORCE.

    Psi_t = R = sum_k gamma^k * r_k

    Source: Williams 1992, doi:10.1007/BF00992696; Schulman et al. 2016, arXiv:1506.02438, equation 1, form 1.

    Args:
        rewards: [B, T] per token, KL penalty included.
        mask: [B, T] bool, True on response tokens, which are contiguous within a row.
        gamma: discount per token, in [0, 1].

    Returns:
        [B, T], the same number on every kept token of a row, 0 where the mask is False.

    Raises:
        ValueError: the shapes differ, the mask is not bool or has a gap, or `gamma` is outside [0, 1].
    """
    return keep(response_return(rewards, mask, gamma).unsqueeze(1).expand(mask.shape), mask)


def reward_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Weight each token by the rewards from it on, a sample of Q(s_t, a_t): it did not cause the earlier ones.

    Psi_t = G_t = sum_{k >= t} gamma^{k - t} * r_k

    Source: Schulman et al. 2016, arXiv:1506.02438, equation 1, form 2. With gamma below 1 the gradient of the
    discounted objective would also weight G_t by gamma^t, which everyone leaves out; with gamma 1 nothing is lost.

    Args:
        rewards: [B, T] per token, KL penalty included.
        mask: [B, T] bool, True on response tokens, which are contiguous within a row.
        gamma: discount per token, in [0, 1].

    Returns:
        [B, T], 0 where the mask is False.

    Raises:
        ValueError: the shapes differ, the mask is not bool or has a gap, or `gamma` is outside [0, 1].
    """
    check_same_shape(rewards=rewards, mask=mask)
    _check_fraction("gamma", gamma)
    _check_contiguous(mask)
    kept = keep(rewards, mask)
    to_go = torch.zeros_like(kept)
    following = kept.new_zeros(mask.shape[0])
    for t in reversed(range(mask.shape[1])):
        following = kept[:, t] + gamma * following
        to_go[:, t] = following
    return keep(to_go, mask)


def baseline(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Subtract V(s_t) from the reward-to-go: what the token brought beyond what was expected.

    Psi_t = G_t - V_t

    Any V that does not depend on the token leaves the expected gradient unchanged. The result equals `gae` with
    gae_lambda 1.

    Source: Schulman et al. 2016, arXiv:1506.02438, equation 1, form 3.

    Args:
        rewards: [B, T] per token, KL penalty included.
        values: [B, T] V(s_t), before token t is emitted.
        mask: [B, T] bool, True on response tokens, which are contiguous within a row.
        gamma: discount per token, in [0, 1].

    Returns:
        [B, T], 0 where the mask is False.

    Raises:
        ValueError: the shapes differ, the mask is not bool or has a gap, or `gamma` is outside [0, 1].
    """
    check_same_shape(rewards=rewards, values=values, mask=mask)
    return reward_to_go(rewards, mask, gamma) - keep(values, mask)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Estimate advantages by an exponentially weighted sum of TD errors.

    A_t = delta_t + gamma * gae_lambda * A_{t+1},  delta_t = r_t + gamma * V_{t+1} - V_t

    Source: Schulman et al. 2016, arXiv:1506.02438, section 3. V after the last kept token is 0: a response truncated by
    length counts as terminal.

    Args:
        rewards: [B, T] per token, KL penalty included.
        values: [B, T] V(s_t), before token t is emitted.
        mask: [B, T] bool, True on response tokens, which are contiguous within a row; positions before the first
            True are forced tokens, part of the state.
        gamma: discount per token, in [0, 1].
        gae_lambda: 0 gives one-step TD errors, 1 gives Monte Carlo.

    Returns:
        [B, T] advantages, not whitened, 0 where the mask is False. Returns are advantages plus values.

    Raises:
        ValueError: the shapes differ, the mask is not bool or has a gap, or a number is outside [0, 1].
    """
    check_same_shape(rewards=rewards, values=values, mask=mask)
    _check_fraction("gamma", gamma)
    _check_fraction("gae_lambda", gae_lambda)
    _check_contiguous(mask)
    rewards, values = keep(rewards, mask), keep(values, mask)
    num_tokens = mask.shape[1]
    advantages = torch.zeros_like(rewards + values)
    # Trailing masked positions hold reward 0 and value 0, so they pass on V = 0 and A = 0.
    next_value = next_advantage = advantages.new_zeros(mask.shape[0])
    for t in reversed(range(num_tokens)):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * gae_lambda * next_advantage
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return keep(advantages, mask)


def _check_fraction(name: str, number: float) -> None:
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], found {number}")


def _check_contiguous(mask: Tensor) -> None:
    if mask.ndim != 2:
        raise ValueError(f"mask must be [B, T], found {list(mask.shape)}")
    starts = mask[:, 1:] & mask[:, :-1].logical_not()
    num_runs = starts.sum(1) + mask[:, :1].sum(1)
    gaps = (num_runs > 1).nonzero().flatten().tolist()
    if gaps:
        raise ValueError(f"mask must be contiguous within a row, found a gap in row {gaps[0]}")
