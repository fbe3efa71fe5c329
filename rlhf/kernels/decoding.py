"""The steps of a decoding block between its matrix products: compiled, each with a twin in torch."""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rlhf.kernels.library import SUFFIXES, addresses, kernel, library


@dataclass(slots=True)
class LayerCache:
    """Keys and values of one layer, reserved for the final length, and the rows that are still being generated."""

    keys: Tensor
    """[R, key heads, C, D]."""
    values: Tensor
    """[R, key heads, C, D]."""
    slots: Tensor
    """[N] int64: the slot of each row in the memory."""
    first: Tensor
    """[N] int64: the first column that is not padding."""
    column: int
    """Where the next token of every row goes."""


class Kernels:
    """The kernels for one number type: compiled where they can be, the plain twins elsewhere."""

    def __init__(self, dtype: torch.dtype, *, compiled: bool = True) -> None:
        self._dtype = dtype
        self.is_compiled = compiled and dtype in SUFFIXES and library() is not None
        if self.is_compiled:
            self._rms_norm, self._silu_mul, self._attend = (
                kernel(name, dtype) for name in ("rms_norm", "silu_mul", "attend")
            )

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return [N, H] rows of `x` divided by their root mean square, rounded, and multiplied by `weight` [H]."""
        if not self.is_compiled:
            return plain_rms_norm(x, weight, eps)
        x, weight = x.contiguous(), weight.contiguous()  # kept by name: an address does not keep a copy alive
        out = torch.empty_like(x)
        self._rms_norm(*addresses(self._dtype, x, weight), out.data_ptr(), None, *x.shape, eps)
        return out

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up, [N, I], of both halves of [N, 2 I]."""
        if not self.is_compiled:
            return plain_silu_mul(gate_up)
        num_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        gate_up = gate_up.contiguous()
        out = gate_up.new_empty(num_rows, width)
        (gate,) = addresses(self._dtype, gate_up)
        self._silu_mul(gate, gate + width * gate_up.element_size(), out.data_ptr(), num_rows, width, 2 * width)
        return out

    def attend(self, qkv: Tensor, rotation: tuple[Tensor, Tensor], layer: LayerCache, scale: float) -> Tensor:
        """Rotate queries and keys, append keys and values to the cache, and attend to all of it.

        Args:
            qkv: [N, (heads + 2 key heads) * D], one token per row.
            rotation: cosines and sines [C, D] float32 of every position.
            layer: holds the rows' keys and values; written in place at `layer.column`.
            scale: factor of the scores.

        Returns:
            [N, heads * D].

        Raises:
            ValueError: compiled code would read or write beyond a tensor, or numbers of another type.
        """
        cos, sin = rotation
        _, key_heads, capacity, width = layer.keys.shape
        heads = qkv.shape[1] // width - 2 * key_heads
        if layer.column >= min(capacity, len(cos)) or not len(qkv) == len(layer.slots) == len(layer.first):
            raise ValueError(
                f"{len(qkv)} tokens at column {layer.column} do not fit {len(layer.slots)} rows of {capacity} columns"
            )
        if not self.is_compiled:
            return plain_attend(qkv, rotation, layer, scale)
        qkv = qkv.contiguous()
        out = qkv.new_empty(qkv.shape[0], heads * width)
        shape = (ctypes.c_int64 * 5)(qkv.shape[0], heads, key_heads, width, capacity)
        self._attend(
            *addresses(self._dtype, qkv),
            *addresses(torch.float32, cos, sin),
            *addresses(torch.int64, layer.slots, layer.first),
            layer.column,
            *addresses(self._dtype, layer.keys, layer.values),
            out.data_ptr(),
            shape,
            scale,
        )
        return out


def plain_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Do what `Kernels.rms_norm` does, in torch."""
    wide = x.float()
    return (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()).to(x.dtype) * weight


def plain_silu_mul(gate_up: Tensor) -> Tensor:
    """Do what `Kernels.silu_mul` does, in torch."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def plain_attend(qkv: Tensor, rotation: tuple[Tensor, Tensor], layer: LayerCache, scale: float) -> Tensor:
    """Do what `Kernels.attend` does, in torch."""
    _, key_heads, _, width = layer.keys.shape
    heads = qkv.shape[1] // width - 2 * key_heads
    positions = layer.column - layer.first
    rotated, values = split_rotated(qkv, heads, key_heads, (rotation[0][positions], rotation[1][positions]))
    layer.keys[layer.slots, :, layer.column], layer.values[layer.slots, :, layer.column] = rotated[:, heads:], values
    seen = slice(0, layer.column + 1)
    keys, values = layer.keys[layer.slots, :, seen], layer.values[layer.slots, :, seen]
    queries = rotated[:, :heads].reshape(len(qkv), key_heads, heads // key_heads, width)
    scores = (queries @ keys.transpose(-1, -2)).float() * scale
    padding = torch.arange(layer.column + 1, device=qkv.device) < layer.first[:, None]
    weights = scores.masked_fill(padding[:, None, None], -torch.inf).softmax(-1).to(qkv.dtype)
    return (weights @ values).reshape(len(qkv), heads * width)


def split_rotated(qkv: Tensor, heads: int, key_heads: int, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Split [N, (heads + 2 key heads) * D] into rotated queries and keys [N, heads + key heads, D], and values.

    Source: Su et al. 2021, arXiv:2104.09864, in the layout of transformers: the halves of a head rotate together.
    """
    cos, sin = rotation[0][:, None], rotation[1][:, None]
    split = qkv.reshape(len(qkv), heads + 2 * key_heads, cos.shape[-1])
    wide = split[:, : heads + key_heads].float()
    first, second = wide.chunk(2, dim=-1)
    rotated = wide * cos + torch.cat((-second, first), dim=-1) * sin
    return rotated.to(qkv.dtype), split[:, heads + key_heads :]
