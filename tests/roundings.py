"""How far two computations of the same numbers may lie apart because each rounds in an order of its own.

A sum of n terms rounds n times, each time by at most u = eps / 2 of what is added up. Errors of n roundings stay below
n u; as their signs are as good as random, also below z sqrt(n) u, for all but 2 exp(-z^2 / 2) of the numbers (Higham
and Mary 2019, "A new approach to probabilistic rounding error analysis", doi:10.1137/18M1226312). Each of two
computations is off by that much, so they are apart by at most twice as much: by eps in the place of u.
"""

import math
from typing import Any

import torch

DEVIATIONS = 6.0
"""z: 2 exp(-18) = 3e-8 of the numbers may be further apart."""
LOGPROB = 2
"""A logprob is a logit minus a mean of logits: where logits are off by d, it is off by at most 2 d."""


def apart(size: float, num_roundings: int, dtype: torch.dtype = torch.float32) -> float:
    """Return the tolerance for two computations in `dtype` with `num_roundings` one behind the other.

    Args:
        size: the largest number that is added up; of a model's pass the largest logit.
        num_roundings: of each of the two.
        dtype: in which numbers are rounded.
    """
    return min(num_roundings, DEVIATIONS * math.sqrt(num_roundings)) * torch.finfo(dtype).eps * size


def of_a_pass(config: Any, num_keys: int) -> int:
    """Return how many roundings lie one behind the other between the ids and a logit, the longest way through a model.

    A layer: at most four norms, the projections in and out, a score, the softmax's sum and the mix of values, the two
    products of the MLP. After the last layer a norm and the head.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or hidden // heads
    inner = getattr(config, "intermediate_size", None) or 4 * hidden  # GPT-2 has no key for it
    layer = 4 * hidden + (hidden + heads * head_dim) + head_dim + 2 * num_keys + (hidden + inner)
    return int(config.num_hidden_layers * layer + 2 * hidden)
