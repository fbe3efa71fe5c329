"""Attention of short rows as plain matrix products: faster on a CPU than the fused kernel, above all backward."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf.functional.attention import LONGEST, grouped_attention

NAME = "rlhf_short_rows"
"""The name under which transformers registers this attention."""
EXTRAS = ("position_bias", "cache", "softcap", "s_aux")
"""Arguments of transformers that the plain products do not support."""


def use_short_row_attention(model: PreTrainedModel) -> None:
    """Make a model that uses torch's attention (sdpa) use `short_row_attention` instead."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def short_row_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute softmax(scaling * Q K^T) V where keys are visible, by `grouped_attention`.

    Long rows, other devices, dropout and `EXTRAS` go to torch's own attention.

    Args:
        module: the attention layer; its `is_causal` says what a missing mask means.
        query: [B, heads, S, D].
        key: [B, key heads, K, D].
        value: [B, key heads, K, E], E = D in most models.
        attention_mask: [B or 1, 1, S, K] bool, True where a key is visible; None: earlier keys, or all for one query.
        options: `scaling` (D ** -0.5 when None) and `is_causal`, as transformers passes them.

    Returns:
        [B, S, heads, E], and None instead of attention weights.
    """
    is_plain = attention_mask is None or (attention_mask.dtype == torch.bool and attention_mask.shape[1] == 1)
    has_extras = bool(options.get("dropout")) or any(options.get(name) is not None for name in EXTRAS)
    if query.device.type != "cpu" or key.shape[2] > LONGEST or not is_plain or has_extras:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    length, num_keys = query.shape[2], key.shape[2]
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    invisible = _invisible(module, attention_mask, length, num_keys, options.get("is_causal"), query.device)
    return grouped_attention(query, key, value, invisible, scaling).transpose(1, 2), None


def _invisible(
    module: nn.Module,
    mask: Tensor | None,
    length: int,
    num_keys: int,
    is_causal: bool | None,
    device: torch.device,
) -> Tensor | None:
    """Return a bool tensor that broadcasts to [B, key heads, heads each, S, K], None when every key is visible."""
    if mask is not None:
        return ~mask[:, :, None]
    if length == 1 or not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        return None
    return torch.ones(length, num_keys, dtype=torch.bool, device=device).triu(1)


AttentionInterface.register(NAME, short_row_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
