"""The steps of a block between its matrix products, forward and backward: each is one pass over memory.

torch runs the same as many small kernels: on 2 cores they take a third of a forward pass of SmolLM2-135M. All sums are
taken in float32. A result does not depend on other rows, on the number of threads, or on whether gradients are kept.
"""

import ctypes
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from rlhf.kernels.library import addresses, kernel

LONGEST = 512
"""Most tokens of a row whose attention is computed here; causal_softmax in rows.cpp keeps so many on its stack."""
CHUNK = 32
"""Rows whose gradients of a norm's weight are summed by one thread."""
Rows = tuple[Tensor, int]
"""[B + 1] int64, where the tokens of each row begin in their sequence, and where the last row ends; the longest row."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return [..., H], `x` divided by the root of its mean square + eps, rounded, and multiplied by `weight` [H]."""
    return _RmsNorm.apply(x, weight, eps)  # type: ignore[no-any-return,no-untyped-call]


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(gate) * up for tensors of one shape."""
    return _SiluMul.apply(gate, up)  # type: ignore[no-any-return,no-untyped-call]


def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, rotation: tuple[Tensor, Tensor], rows: Rows, scaling: float
) -> Tensor:
    """Turn queries and keys by their positions, and attend to the tokens of the same row that are not later.

    Args:
        query: [N, heads, D], tokens of all rows; the heads of a group are adjacent.
        key: [N, key heads, D].
        value: [N, key heads, D].
        rotation: cosines and sines of positions, [N, D], or [S, D] where every row begins at position 0 and has S
            tokens; the halves of a head rotate together (Su et al. 2021, arXiv:2104.09864, in transformers' layout).
        rows: which tokens form a row; the longest has at most `LONGEST`.
        scaling: factor of the scores.

    Returns:
        [N, heads, D].
    """
    _check_same("keys and values", value.shape, key.shape)
    layout = _Layout(query, key, (rotation[0].contiguous(), rotation[1].contiguous()), rows)
    return _Attention.apply(query, key, value, layout, scaling)  # type: ignore[no-any-return,no-untyped-call]


def read_logits(logits: Tensor, targets: Tensor, scale: float, *, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Read one token a row from its logits; autograd does not see it, `logits_gradient` is its way back.

    Args:
        logits: [N, V].
        targets: [N] int64, below V.
        scale: factor of the logits; z = scale * logits.
        with_entropy: also compute entropies.

    Returns:
        log softmax(z)[target], the entropies of softmax(z) (zeros unless requested), and log sum exp z: [N] float32.

    Raises:
        IndexError: a target is no token of the vocabulary.
        ValueError: there is another number of targets than of rows.
    """
    _check_same("targets", targets.shape, logits.shape[:1])
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[-1]:
        raise IndexError(
            f"tokens from {int(targets.min())} to {int(targets.max())} in a vocabulary of {logits.shape[-1]}"
        )
    out = torch.zeros(3, len(logits))
    logprobs, spread, normaliser = out
    kernel("head_forward", logits.dtype)(
        *addresses(logits.dtype, logits),
        *addresses(torch.int64, targets),
        *addresses(torch.float32, logprobs, spread, normaliser),
        *logits.shape,
        scale,
        with_entropy,
    )
    return logprobs, spread, normaliser


def logits_gradient(
    logits: Tensor, targets: Tensor, found: tuple[Tensor, Tensor], grads: tuple[Tensor, Tensor | None], scale: float
) -> Tensor:
    """Turn logits into the gradient [N, V] by them, in place and in their type.

    Args:
        logits: as for `read_logits`.
        targets: likewise.
        found: entropies and normalisers that it returned, [N].
        grads: by the logprobs and by the entropies, [N] float32; None for entropies that were not computed.
        scale: as for `read_logits`.

    Returns:
        `logits`.
    """
    (spread, normaliser), (by_logprob, by_entropy) = found, grads
    for each in (targets, spread, normaliser, by_logprob, *(() if by_entropy is None else (by_entropy,))):
        _check_same("one number a row", each.shape, logits.shape[:1])
    kernel("head_backward", logits.dtype)(
        *addresses(logits.dtype, logits),
        *addresses(torch.int64, targets),
        *addresses(torch.float32, normaliser, spread, by_logprob),
        None if by_entropy is None else addresses(torch.float32, by_entropy)[0],
        *logits.shape,
        scale,
        by_entropy is not None,
    )
    return logits


def _check_same(what: str, found: torch.Size, expected: torch.Size) -> None:
    if found != expected:
        raise ValueError(f"{what}: found shape {list(found)}, expected {list(expected)}")


class _RmsNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        _check_same("a norm's weight", weight.shape, x.shape[-1:])
        num_rows, out = x.numel() // x.shape[-1], torch.empty_like(x)
        scales = torch.empty(num_rows)
        pointers = addresses(x.dtype, x, weight, out)
        kernel("rms_norm", x.dtype)(*pointers, scales.data_ptr(), num_rows, x.shape[-1], eps)
        ctx.save_for_backward(x, weight, scales)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight, scales = ctx.saved_tensors
        grad, out, width = grad.contiguous(), torch.empty_like(x), x.shape[-1]
        sums = torch.zeros(-(-len(scales) // CHUNK), width) if ctx.needs_input_grad[1] else None
        kernel("rms_norm_backward", x.dtype)(
            *addresses(x.dtype, grad, x, weight),
            *addresses(torch.float32, scales),
            out.data_ptr(),
            None if sums is None else sums.data_ptr(),
            len(scales),
            width,
            CHUNK,
        )
        return out, None if sums is None else sums.sum(0).to(weight.dtype), None


class _SiluMul(Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        _check_same("gate and up", up.shape, gate.shape)
        out, width = torch.empty_like(gate), gate.shape[-1]
        kernel("silu_mul", gate.dtype)(*addresses(gate.dtype, gate, up, out), gate.numel() // width, width, width)
        ctx.save_for_backward(gate, up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        grad, to_gate, to_up = grad.contiguous(), torch.empty_like(gate), torch.empty_like(up)
        pointers, width = addresses(gate.dtype, grad, gate, up, to_gate, to_up), gate.shape[-1]
        kernel("silu_mul_backward", gate.dtype)(*pointers, gate.numel() // width, width)
        return to_gate, to_up


class _Attention(Function):
    """Queries Q are turned and scaled, keys K turned; with weights P = softmax(Q K^T) the output is O = P V.

    dV = P^T dO,  dP = dO V^T,  dS = P (dP - sum P dP),  dQ = dS K,  dK = dS^T Q; then queries and keys turn back.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: "_Layout", scaling: float) -> Tensor:
        queries = layout.to_rows(query, scaling, turns=True)
        keys, values = layout.to_rows(key, 1.0, turns=True), layout.to_rows(value, 1.0, turns=False)
        weights = layout.softmax(queries @ keys.transpose(-1, -2))
        ctx.save_for_backward(queries, keys, values, weights)
        ctx.layout, ctx.scaling = layout, scaling
        return layout.to_tokens(weights @ values, query.shape[1], 1.0, turns=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, weights = ctx.saved_tensors
        layout: _Layout = ctx.layout
        grads = layout.to_rows(grad, 1.0, turns=False)
        by_value = weights.transpose(-1, -2) @ grads
        by_score = layout.softmax_backward(grads @ values.transpose(-1, -2), weights)
        by_query, by_key = by_score @ keys, by_score.transpose(-1, -2) @ queries
        heads, key_heads = grad.shape[1], keys.shape[1]
        return (
            layout.to_tokens(by_query, heads, ctx.scaling, turns=True),
            layout.to_tokens(by_key, key_heads, 1.0, turns=True),
            layout.to_tokens(by_value, key_heads, 1.0, turns=False),
            None,
            None,
        )


class _Layout:
    """How the tokens [N, heads, D] of a pack lie in padded rows [B, key heads, heads of each * S, D]."""

    def __init__(self, query: Tensor, key: Tensor, rotation: tuple[Tensor, Tensor], rows: Rows) -> None:
        (num_tokens, heads, width), key_heads, (starts, longest) = query.shape, key.shape[1], rows
        self._dtype, self._num_tokens = query.dtype, num_tokens
        self._starts, self._rotation = starts, rotation
        self._shape = (len(starts) - 1, key_heads, heads // key_heads, longest, width)
        turned = rotation[0].shape
        if longest > LONGEST or width % 2 or turned not in ((num_tokens, width), (longest, width)):
            raise ValueError(f"rows of up to {longest} tokens do not fit rotations {list(turned)} and heads of {width}")
        if (heads % key_heads, key.shape[0], key.shape[2]) != (0, num_tokens, width):
            raise ValueError(f"queries {list(query.shape)} do not fit keys {list(key.shape)}")
        bounds = starts.tolist()
        is_whole = bounds[0] == 0 and bounds[-1] == num_tokens
        if not (is_whole and all(0 <= last - first <= longest for first, last in pairwise(bounds))):
            raise ValueError(f"rows that begin at {bounds} are not {num_tokens} tokens in rows of up to {longest}")

    def to_rows(self, tokens: Tensor, scale: float, *, turns: bool) -> Tensor:
        num_rows, key_heads, _, longest, width = self._shape
        tokens, heads = tokens.contiguous(), tokens.shape[1]
        out = tokens.new_empty(num_rows, key_heads, heads // key_heads * longest, width)
        self._place("to_rows", tokens, out, heads, scale, turns)
        return out

    def to_tokens(self, rows: Tensor, heads: int, scale: float, *, turns: bool) -> Tensor:
        out = rows.new_empty(self._num_tokens, heads, self._shape[-1])
        self._place("to_tokens", rows.contiguous(), out, heads, scale, turns)
        return out

    def softmax(self, scores: Tensor) -> Tensor:
        """Turn scores into weights, in place."""
        kernel("causal_softmax", self._dtype)(*addresses(self._dtype, scores), *self._rows())
        return scores

    def softmax_backward(self, grads: Tensor, weights: Tensor) -> Tensor:
        """Turn the gradients of the weights into those of the scores, in place."""
        kernel("causal_softmax_backward", self._dtype)(*addresses(self._dtype, grads, weights), *self._rows())
        return grads

    def _place(self, name: str, source: Tensor, target: Tensor, heads: int, scale: float, turns: bool) -> None:
        num_rows, _, _, longest, width = self._shape
        cos, sin = addresses(self._dtype, *self._rotation) if turns else (None, None)
        is_shared = len(self._rotation[0]) != self._num_tokens or num_rows == 1
        kernel(name, self._dtype)(
            *addresses(self._dtype, source),
            cos,
            sin,
            *addresses(self._dtype, target),
            *addresses(torch.int64, self._starts),
            num_rows,
            heads,
            longest,
            width,
            is_shared,
            scale,
        )

    def _rows(self) -> tuple[int, Any]:
        return addresses(torch.int64, self._starts)[0], (ctypes.c_int64 * 5)(*self._shape)
