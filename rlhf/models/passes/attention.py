"""Attention of short rows as plain matrix products: faster on a CPU than the fused kernel, above all backward."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf.functional.attention import LONGEST, SHORT_ROWS, grouped_attention
from rlhf.models.passes.packing import LONGEST_ROW, allows_packing, as_rows, as_tokens, use_packing

EXTRAS = ("position_bias", "cache", "softcap", "s_aux")
"""Arguments of transformers that the plain products do not support."""


def use_short_row_attention(model: PreTrainedModel) -> None:
    """Make a model that uses torch's attention (sdpa) use `short_row_attention` instead, and pack rows if it can."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(SHORT_ROWS)
    if model.config._attn_implementation == SHORT_ROWS:
        use_packing(model, "cpu" if allows_packing(model) else "nowhere")


def short_row_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute softmax(scaling * Q K^T) V where keys are visible, by `grouped_attention`.

    Long rows, other devices, dropout and `EXTRAS` go to torch's own attention. Tokens of a pack go there as rows.

    Args:
        module: the attention layer; its `is_causal` says what a missing mask means.
        query: [B, heads, S, D].
        key: [B, key heads, K, D].
        value: [B, key heads, K, E], E = D in most models.
        attention_mask: [B or 1, 1, S, K] bool, True where a key is visible; None: earlier keys, or all for one query.
        options: `scaling` (D ** -0.5 when None) and `is_causal`, as transformers passes them; `packing`, a `Pack`, if
            the inputs are the tokens of one, [1, heads, N, D]: then the mask is one of rows.

    Returns:
        [B, S, heads, E], and None instead of attention weights.
    """
    pack = options.pop("packing", None)
    if pack is not None:
        queries, keys, values = (as_rows(each.transpose(1, 2), pack).transpose(1, 2) for each in (query, key, value))
        output, _ = short_row_attention(module, queries, keys, values, attention_mask, **options)
        return as_tokens(output, pack), None
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


def row_mask(*, q_length: int, kv_length: int, **options: Any) -> Tensor | None:
    """Return the mask of `sdpa_mask`; while rows share one, that one, window included."""
    longest = LONGEST_ROW.get()
    if longest is None:
        return sdpa_mask(q_length=q_length, kv_length=kv_length, **options)
    return sdpa_mask(q_length=longest, kv_length=longest, **{**options, "attention_mask": None})


AttentionInterface.register(SHORT_ROWS, short_row_attention)
AttentionMaskInterface.register(SHORT_ROWS, row_mask)
