"""The steps of a decoding block between its matrix products: compiled from kernels.cpp, each with a twin in torch."""

import ctypes
import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rlhf.sampling.compiled_kernels import load

SUFFIXES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
SIGNATURES = {
    "rms_norm": [*[_POINTER] * 3, _INT, _INT, _FLOAT],
    "silu_mul": [_POINTER, _POINTER, _INT, _INT],
    "attend": [*[_POINTER] * 5, _INT, *[_POINTER] * 4, _FLOAT],
}


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


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, loaded once a process; None where there are none."""
    loaded = load()
    for name, signature in SIGNATURES.items() if loaded is not None else ():
        for suffix in SUFFIXES.values():
            getattr(loaded, f"{name}_{suffix}").argtypes = signature
            getattr(loaded, f"{name}_{suffix}").restype = None
    return loaded


class Kernels:
    """The kernels for one number type: compiled where they can be, the plain twins elsewhere."""

    def __init__(self, dtype: torch.dtype, *, compiled: bool = True) -> None:
        self._dtype = dtype
        found = library() if compiled and dtype in SUFFIXES else None
        self.is_compiled = found is not None
        if found is not None:
            suffix = SUFFIXES[dtype]
            self._rms_norm = getattr(found, f"rms_norm_{suffix}")
            self._silu_mul = getattr(found, f"silu_mul_{suffix}")
            self._attend = getattr(found, f"attend_{suffix}")

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Return [N, H] rows of `x` divided by their root mean square, rounded, and multiplied by `weight` [H]."""
        if not self.is_compiled:
            return plain_rms_norm(x, weight, eps)
        x, weight = x.contiguous(), weight.contiguous()  # kept by name: an address does not keep a copy alive
        out = torch.empty_like(x)
        self._rms_norm(*_addresses(self._dtype, x, weight), out.data_ptr(), *x.shape, eps)
        return out

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up, [N, I], of both halves of [N, 2 I]."""
        if not self.is_compiled:
            return plain_silu_mul(gate_up)
        num_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        gate_up = gate_up.contiguous()
        out = gate_up.new_empty(num_rows, width)
        self._silu_mul(*_addresses(self._dtype, gate_up), out.data_ptr(), num_rows, width)
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
            *_addresses(self._dtype, qkv),
            *_addresses(torch.float32, cos, sin),
            *_addresses(torch.int64, layer.slots, layer.first),
            layer.column,
            *_addresses(self._dtype, layer.keys, layer.values),
            out.data_ptr(),
            shape,
            scale,
        )
        return out


def _addresses(dtype: torch.dtype, *tensors: Tensor) -> list[int]:
    """Return the data pointers of tensors, which must be contiguous and of `dtype`."""
    for tensor in tensors:
        if tensor.dtype != dtype or not tensor.is_contiguous():
            raise ValueError(f"kernels take contiguous {dtype}, found {tensor.dtype} with strides {tensor.stride()}")
    return [tensor.data_ptr() for tensor in tensors]


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
