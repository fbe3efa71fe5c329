"""From logits to log-probabilities of tokens and to entropy, both in nats."""

import torch
from torch import Tensor

from rlhf.functional.arguments import as_float


def token_logprobs(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Compute the log-probability of each token under the distribution it is sampled from.

    log p(id) = z_id - log sum_v exp(z_v),  z = logits / temperature

    Gathers before it normalises, so it makes no [..., V] tensor of log-probabilities.

    Args:
        logits: [..., V] of the position that predicts the token, any float type.
        ids: [...] int64, the tokens; masked positions hold any valid id (0).
        temperature: sampling temperature, above 0.

    Returns:
        [...] nats, float32 (float64 logits stay float64).

    Raises:
        ValueError: `ids` does not have the leading shape of `logits`, or the temperature is not above 0.
    """
    if ids.shape != logits.shape[:-1]:
        raise ValueError(
            f"ids must have the shape of logits without its last axis {list(logits.shape[:-1])}, "
            f"found {list(ids.shape)}"
        )
    scaled = _at_temperature(logits, temperature)
    chosen = scaled.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen - scaled.logsumexp(-1)


def entropy(logits: Tensor, temperature: float) -> Tensor:
    """Compute the entropy of the distribution over the next token.

    H = log sum_v exp(z_v) - sum_v p_v * z_v,  z = logits / temperature, p = softmax(z)

    Args:
        logits: [..., V], any float type; -inf is a token of probability 0.
        temperature: sampling temperature, above 0.

    Returns:
        [...] nats, float32 (float64 logits stay float64).

    Raises:
        ValueError: the temperature is not above 0.
    """
    scaled = _at_temperature(logits, temperature)
    # 0 * -inf is NaN; a forbidden token adds 0 to the sum.
    finite = torch.where(scaled == -torch.inf, torch.zeros_like(scaled), scaled)
    return scaled.logsumexp(-1) - (scaled.softmax(-1) * finite).sum(-1)


def _at_temperature(logits: Tensor, temperature: float) -> Tensor:
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, found {temperature}: a greedy choice has no log-probability")
    floats = as_float(logits)
    return floats if temperature == 1.0 else floats / temperature
