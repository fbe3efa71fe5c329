"""The KL of the policy from the reference: estimated from sampled tokens, or summed over the vocabulary."""

from typing import Literal

import torch
from torch import Tensor

from rlhf.functional.arguments import as_float, check_same_shape

Estimator = Literal["k1", "k2", "k3"]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: Estimator) -> Tensor:
    """Estimate KL(policy || reference) at each token that the policy sampled.

    d = log p(token) - log q(token)
    k1 = d                  unbiased, negative for single tokens
    k2 = d^2 / 2            biased, low variance
    k3 = exp(-d) - 1 + d    unbiased, never negative

    As a penalty in the reward, which is not differentiated, only k1 gives the gradient of the KL: k2 and k3 depend on
    the policy too, and the gradient through them is missing.

    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html; his r is q / p = exp(-d).

    Args:
        logprobs: [B, T] of the policy that sampled the tokens.
        ref_logprobs: [B, T] of the frozen reference, at the same temperature.
        estimator: "k1", "k2" or "k3".

    Returns:
        [B, T] nats, float32 (float64 stays). The sum over a row's real tokens estimates the KL of the sequence.

    Raises:
        ValueError: the shapes differ, or the estimator is unknown.
    """
    check_same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    difference = as_float(logprobs) - as_float(ref_logprobs)
    match estimator:
        case "k1":
            return difference
        case "k2":
            return 0.5 * difference.square()
        case "k3":
            # expm1 keeps the digits that exp(-d) - 1 loses near d = 0, where trained policies live.
            return torch.expm1(-difference) + difference
        case _:
            raise ValueError(f"estimator must be k1, k2 or k3, found {estimator!r}")


def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Compute KL(policy || reference) exactly, by summing over the vocabulary.

    KL = sum_v p_v * (log p_v - log q_v),  p = softmax(logits), q = softmax(ref_logits)

    Args:
        logits: [..., V] of the policy, already divided by the sampling temperature.
        ref_logits: [..., V] of the reference, likewise.

    Returns:
        [...] nats, float32 (float64 stays); inf where the policy can emit a token that the reference cannot.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(logits=logits, ref_logits=ref_logits)
    log_p = as_float(logits).log_softmax(-1)
    log_q = as_float(ref_logits).log_softmax(-1)
    # -inf minus -inf is NaN; a token that the policy never emits adds 0.
    difference = torch.where(log_p == -torch.inf, torch.zeros_like(log_p), log_p - log_q)
    return (log_p.exp() * difference).sum(-1)
