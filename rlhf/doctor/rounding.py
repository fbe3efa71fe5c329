"""How much two ways to compute one number may differ by rounding alone."""

import math

import torch
from transformers import PreTrainedModel

MEAN_UNITS = 3.0
"""Allowed mean difference of two logprobs, in units of `rounding_unit`, which says what was measured."""
LARGEST_UNITS = 16.0
"""Allowed largest difference; over 200 tokens we measured at most 5 (bfloat16) and 1.4 (float32) units."""
FLOOR = 1e-5
"""Nats; a mean difference below this is always allowed."""


def rounding_unit(model: PreTrainedModel) -> float:
    """Return about how much two passes of the same weights differ in a logprob, in nats.

    eps * sqrt(L) in bfloat16: products are summed in float32 and rounded once per block; errors of L blocks add up like
    a random walk. eps * sqrt(L * H) in float32, where the sums over H terms round as well.

    Measured with a model of L = 30 and H = 576, one-token steps against one pass: mean 0.043 in bfloat16 (unit 0.043)
    and 4.9e-6 in float32 (unit 1.6e-5).
    """
    config, dtype = model.config.get_text_config(), model.dtype
    num_roundings = config.num_hidden_layers * (config.hidden_size if dtype == torch.float32 else 1)
    return max(torch.finfo(dtype).eps * math.sqrt(num_roundings), FLOOR / MEAN_UNITS)
