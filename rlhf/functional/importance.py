"""Importance weights for responses that another engine drew than the one that trains: truncated, or masked."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rlhf.functional.arguments import as_float, check_same_shape
from rlhf.functional.masking import keep, masked_mean

Correction = Literal["token", "sequence", "icepop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceWeights:
    """Factors of the policy loss, without gradient, and what was cut."""

    weights: Tensor
    """[B, T] float32, 0 where masked; the policy loss of each token is multiplied by it."""
    truncated: Tensor
    """Scalar, share of real tokens whose weight was cut, or set to 0."""
    difference: Tensor
    """Scalar, nats, mean over real tokens of |trainer's logprob - engine's logprob|."""
    largest: Tensor
    """Scalar, nats, the largest of these differences."""


@torch.no_grad()
def importance_weights(
    logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor, correction: Correction, floor: float, cap: float
) -> ImportanceWeights:
    """Weigh tokens that an engine drew with other logprobs than the trainer's.

    r_t = p_trainer(a_t) / p_engine(a_t)
    token     w_t = min(r_t, cap)
    sequence  w_t = min(prod_s r_s, cap), the same for all tokens of a response
    icepop    w_t = r_t if floor <= r_t <= cap, else 0

    Source: Ionides 2008, "Truncated importance sampling", doi:10.1198/106186008X320456, for the cut; Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training", for its use between sampler and trainer,
    as verl has it (token and sequence); Ling Team 2025, arXiv:2510.18855, for IcePop.

    Args:
        logprobs: [B, T] nats, the trainer's, of the weights that sampled.
        engine_logprobs: [B, T] nats, the engine's, of the same tokens.
        mask: [B, T] bool, True on response tokens.
        correction: "token", "sequence" or "icepop".
        floor: smallest weight that icepop keeps; the others ignore it.
        cap: largest weight.

    Returns:
        The weights, the share that was cut, and how far the logprobs are apart.

    Raises:
        ValueError: the shapes differ, the mask is not bool, the bounds do not enclose 1, or the name is unknown.
    """
    check_same_shape(logprobs=logprobs, engine_logprobs=engine_logprobs, mask=mask)
    if not 0.0 <= floor < 1.0 <= cap:
        raise ValueError(f"floor ({floor}) must be in [0, 1) and cap ({cap}) at least 1")
    log_ratio = keep(as_float(logprobs) - as_float(engine_logprobs), mask)
    match correction:
        case "token" | "icepop":
            ratio = log_ratio.exp()
        case "sequence":
            ratio = log_ratio.sum(1, keepdim=True).exp().expand_as(log_ratio)
        case _:
            raise ValueError(f"correction must be token, sequence or icepop, found {correction!r}")
    is_cut = ratio > cap
    if correction == "icepop":
        is_cut = is_cut | (ratio < floor)
        weights = ratio.masked_fill(is_cut, 0.0)
    else:
        weights = ratio.clamp(max=cap)
    return ImportanceWeights(
        weights=keep(weights, mask),
        truncated=masked_mean(is_cut, mask),
        difference=masked_mean(log_ratio.abs(), mask),
        largest=log_ratio.abs().max(),
    )
