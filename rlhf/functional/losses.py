"""The losses: policy gradient, clipped policy and value losses, the preference loss and the next-token loss.

A loss over tokens is a sum divided by `num_tokens`, the number of real tokens in the whole global minibatch. So the
losses of microbatches, and their gradients, add up to those of the minibatch, however it was split. The statistics of
`PolicyLoss` and `ValueLoss` are detached means over this mask's tokens, whatever the divisor; to combine microbatches,
weight them by `mask.sum()`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rlhf.functional.arguments import as_float, check_same_shape
from rlhf.functional.masking import keep, masked_mean, masked_variance


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLoss:
    """The policy loss and statistics of the step, all scalars."""

    loss: Tensor
    """Carries the gradient."""
    clip_fraction: Tensor
    """Share of real tokens where the clipped term is larger, so the gradient is 0."""
    approx_kl: Tensor
    """Nats per token, mean of (logprobs - old_logprobs)^2 / 2: the distance from the sampling policy (k2)."""
    ratio_mean: Tensor
    """Mean of p / p_old over real tokens; 1 for equal policies, and in expectation over the sampling policy."""
    ratio_std: Tensor
    """Biased standard deviation of p / p_old over real tokens."""
    ratio_max: Tensor
    """Largest p / p_old of a real token; 0 without real tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueLoss:
    """The value loss, scalars."""

    loss: Tensor
    """Carries the gradient."""
    clip_fraction: Tensor
    """Share of real tokens where the clipped term is larger, so the gradient is 0."""


def policy_gradient_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, num_tokens: float | None = None
) -> PolicyLoss:
    """Compute the loss whose gradient is the policy gradient, without importance weights.

    loss = -1/N * sum_t A_t * log p(a_t)

    Its gradient is right only for the policy that sampled, so only for the first update on a batch; the loss value
    itself means nothing.

    Source: Williams 1992, doi:10.1007/BF00992696.

    Args:
        logprobs: [B, T] nats, of the policy that is trained.
        old_logprobs: [B, T] nats, of the policy that sampled; only for the statistics.
        advantages: [B, T], any rung of the ladder.
        mask: [B, T] bool, True on response tokens.
        num_tokens: N, real tokens in the global minibatch; None counts this mask.

    Returns:
        The loss, and statistics over real tokens; nothing is clipped.

    Raises:
        ValueError: the shapes differ, the mask is not bool, or `num_tokens` is not above 0.
    """
    check_same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    loss = -(keep(advantages, mask) * keep(logprobs, mask)).sum() / _divisor(mask, num_tokens)
    log_ratio = keep(as_float(logprobs) - as_float(old_logprobs), mask)
    return _policy_result(loss, log_ratio, torch.zeros_like(mask), mask)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_range: float | None,
    *,
    num_tokens: float | None = None,
) -> PolicyLoss:
    """Compute the clipped surrogate loss of PPO, or the importance-weighted surrogate without a clip.

    loss = 1/N * sum_t max(-A_t * r_t, -A_t * clip(r_t, 1 - clip_range, 1 + clip_range)),  r_t = p(a_t) / p_old(a_t)

    Source: Schulman et al. 2017, arXiv:1707.06347, equation 7, negated for minimisation; without a clip equation 6.

    Args:
        logprobs: [B, T] nats, of the policy that is trained.
        old_logprobs: [B, T] nats, of the policy that sampled.
        advantages: [B, T].
        mask: [B, T] bool, True on response tokens.
        clip_range: how far the ratio may move from 1 and still be rewarded, above 0; None for no clip.
        num_tokens: N, real tokens in the global minibatch; None counts this mask.

    Returns:
        The loss, and statistics over real tokens.

    Raises:
        ValueError: the shapes differ, the mask is not bool, or a number is not above 0.
    """
    check_same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    # Masked before exp: exp of padding may be inf, and inf * 0 would be NaN in the gradient.
    log_ratio = keep(as_float(logprobs) - as_float(old_logprobs), mask)
    ratio = log_ratio.exp()
    kept_advantages = keep(advantages, mask)
    unclipped = -kept_advantages * ratio
    clipped = unclipped
    if clip_range is not None:
        _check_positive("clip_range", clip_range)
        clipped = -kept_advantages * ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    loss = torch.maximum(unclipped, clipped).sum() / _divisor(mask, num_tokens)
    return _policy_result(loss, log_ratio, clipped > unclipped, mask)


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip_range: float | None,
    *,
    num_tokens: float | None = None,
) -> ValueLoss:
    """Compute the squared error of the value head, clipped around the old values.

    loss = 1/N * sum_t 0.5 * max((V_t - R_t)^2, (clip(V_t, V_old_t - clip_range, V_old_t + clip_range) - R_t)^2)

    Source: OpenAI baselines ppo2, as described by Huang et al. 2022, "The 37 implementation details of PPO", detail 9.

    Args:
        values: [B, T] V(s_t) of the model that is trained.
        old_values: [B, T] V(s_t) at the time of sampling.
        returns: [B, T] the target: unwhitened advantages + old values.
        mask: [B, T] bool, True on response tokens.
        clip_range: how far a value may move from the old one and still be rewarded, above 0; None for no clip.
        num_tokens: N, real tokens in the global minibatch; None counts this mask.

    Returns:
        The loss, and the share of clipped tokens.

    Raises:
        ValueError: the shapes differ, the mask is not bool, or a number is not above 0.
    """
    check_same_shape(values=values, old_values=old_values, returns=returns, mask=mask)
    values, old_values, returns = keep(values, mask), keep(old_values, mask), keep(returns, mask)
    unclipped = (values - returns).square()
    clipped = unclipped
    if clip_range is not None:
        _check_positive("value clip_range", clip_range)
        # Not old + clamp(difference): that would round values that are not clipped at all.
        near = values.clamp(old_values - clip_range, old_values + clip_range)
        clipped = (near - returns).square()
    loss = 0.5 * torch.maximum(unclipped, clipped).sum() / _divisor(mask, num_tokens)
    return ValueLoss(loss=loss, clip_fraction=masked_mean((clipped > unclipped).detach(), mask))


def preference_loss(chosen_scores: Tensor, rejected_scores: Tensor, margins: Tensor) -> Tensor:
    """Compute the Bradley-Terry loss of a reward model.

    loss = 1/B * sum_b -log sigmoid(chosen_b - rejected_b - margin_b)

    Source: Ouyang et al. 2022, arXiv:2203.02155, equation 1; the margin from Touvron et al. 2023, arXiv:2307.09288,
    equation 2.

    Args:
        chosen_scores: [B] of the preferred responses.
        rejected_scores: [B] of the others.
        margins: [B] how far the chosen score must lead; zeros without margins.

    Returns:
        Scalar, nats per pair.

    Raises:
        ValueError: the shapes differ, or there is no pair.
    """
    check_same_shape(chosen_scores=chosen_scores, rejected_scores=rejected_scores, margins=margins)
    if chosen_scores.numel() == 0:
        raise ValueError("chosen_scores must hold at least one pair, found none")
    return -F.logsigmoid(as_float(chosen_scores) - as_float(rejected_scores) - as_float(margins)).mean()


def next_token_loss(logprobs: Tensor, mask: Tensor, *, num_tokens: float | None = None) -> Tensor:
    """Compute the negative log-likelihood of the tokens that are trained on.

    loss = -1/N * sum_t log p(a_t)

    Args:
        logprobs: [B, T] nats, of the tokens of the data.
        mask: [B, T] bool, True on tokens that are trained on.
        num_tokens: N, such tokens in the global minibatch; None counts this mask.

    Returns:
        Scalar, nats per token.

    Raises:
        ValueError: the shapes differ, the mask is not bool, or `num_tokens` is not above 0.
    """
    check_same_shape(logprobs=logprobs, mask=mask)
    return -keep(logprobs, mask).sum() / _divisor(mask, num_tokens)


@torch.no_grad()
def _policy_result(loss: Tensor, log_ratio: Tensor, is_clipped: Tensor, mask: Tensor) -> PolicyLoss:
    ratio = log_ratio.exp()
    return PolicyLoss(
        loss=loss,
        clip_fraction=masked_mean(is_clipped, mask),
        approx_kl=masked_mean(0.5 * log_ratio.square(), mask),
        ratio_mean=masked_mean(ratio, mask),
        ratio_std=masked_variance(ratio, mask).sqrt(),
        ratio_max=keep(ratio, mask).amax(),
    )


def _divisor(mask: Tensor, num_tokens: float | None) -> Tensor | float:
    if num_tokens is None:
        return mask.sum().clamp(min=1)
    _check_positive("num_tokens", num_tokens)
    return num_tokens


def _check_positive(name: str, number: float) -> None:
    if not number > 0.0:
        raise ValueError(f"{name} must be above 0, found {number}")
