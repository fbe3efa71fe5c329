"""The loaded kernels: their signatures, and checks of what is handed to them."""

import ctypes
import functools
from collections.abc import Callable

import torch
from torch import Tensor

from rlhf.kernels.compiling import load

SUFFIXES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
"""Number types that there is compiled code for, and how its functions end."""
_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_PLACED = [*[_POINTER] * 5, *[_INT] * 5, _FLOAT]
SIGNATURES = {
    "rms_norm": [*[_POINTER] * 4, _INT, _INT, _FLOAT],
    "rms_norm_backward": [*[_POINTER] * 6, *[_INT] * 3],
    "silu_mul": [*[_POINTER] * 3, *[_INT] * 3],
    "silu_mul_backward": [*[_POINTER] * 5, _INT, _INT],
    "to_rows": _PLACED,
    "to_tokens": _PLACED,
    "causal_softmax": [_POINTER] * 3,
    "causal_softmax_backward": [_POINTER] * 4,
    "head_forward": [*[_POINTER] * 5, _INT, _INT, _FLOAT, _INT],
    "head_backward": [*[_POINTER] * 6, _INT, _INT, _FLOAT, _INT],
    "attend": [*[_POINTER] * 5, _INT, *[_POINTER] * 4, _FLOAT],
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, loaded once a process; None where there are none."""
    loaded = load()
    for name, signature in SIGNATURES.items() if loaded is not None else ():
        for suffix in SUFFIXES.values():
            getattr(loaded, f"{name}_{suffix}").argtypes = signature
            getattr(loaded, f"{name}_{suffix}").restype = None
    return loaded


def has_kernels(tensor: Tensor) -> bool:
    """Whether compiled code can compute with a tensor: on a CPU, of a known type, where a compiler was found."""
    return tensor.device.type == "cpu" and tensor.dtype in SUFFIXES and library() is not None


def kernel(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """Return a function of the library for a number type; only where `has_kernels` holds."""
    function: Callable[..., None] = getattr(library(), f"{name}_{SUFFIXES[dtype]}")
    return function


def addresses(dtype: torch.dtype, *tensors: Tensor) -> list[int]:
    """Return the data pointers of tensors.

    Raises:
        ValueError: one is not contiguous, or not of `dtype`: compiled code would read something else.
    """
    for tensor in tensors:
        if tensor.dtype != dtype or not tensor.is_contiguous():
            raise ValueError(f"kernels take contiguous {dtype}, found {tensor.dtype} with strides {tensor.stride()}")
    return [tensor.data_ptr() for tensor in tensors]
