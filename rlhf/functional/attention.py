"""Grouped-query attention as plain matrix products."""

import torch
from torch import Tensor

LONGEST = 512
"""Most keys for which the products pay off: they are faster at 33 to 640 keys, but their memory grows quadratically."""
SHORT_ROWS = "rlhf_short_rows"
"""The name under which transformers knows the attention of short rows (`models/passes/attention.py`)."""


def grouped_attention(
    queries: Tensor, keys: Tensor, values: Tensor, invisible: Tensor | None, scaling: float
) -> Tensor:
    """Compute softmax(scaling * Q K^T) V where keys are visible.

    Heads that share keys become rows of one product, so keys are never repeated. The softmax sums in float32 whatever
    the dtype of the scores.

    Args:
        queries: [B, heads, S, D]; the heads of a group are adjacent.
        keys: [B, key heads, K, D].
        values: [B, key heads, K, E].
        invisible: bool that broadcasts to [B, key heads, heads of each, S, K], True where a key is masked out; None
            masks none. A row with every key masked (padding) gets the mean of all values.
        scaling: factor of the scores.

    Returns:
        [B, heads, S, E].
    """
    num_rows, heads, length, _ = queries.shape
    key_heads, num_keys = keys.shape[1:3]
    grouped = (queries * scaling).reshape(num_rows, key_heads, -1, queries.shape[-1])
    scores = (grouped @ keys.transpose(-1, -2)).view(num_rows, key_heads, -1, length, num_keys)
    if invisible is not None:
        # The smallest number instead of -inf: a row with every key masked would otherwise be NaN.
        scores = scores.masked_fill(invisible, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).view(num_rows, key_heads, -1, num_keys)
    return (weights @ values).view(num_rows, heads, length, -1)
