"""Which number type a run computes in."""

import functools
import time
from typing import Literal

import torch
from torch import Tensor

SIZE = 1024
"""Side of the matrices that are multiplied in the check: 2 GFLOP, tens of milliseconds on a small CPU."""
SIZE_ON_GPU = 8192
"""The same on a GPU, which takes milliseconds for such a product: a smaller one measures how fast it starts."""
FIRST_SIZE = 64
"""Side of the first products: so small that one thread computes them, and other work on the machine hardly counts."""
FIRST_REPEATS = 20
"""Of each type; on a busy machine some wait milliseconds for the second thread."""
HOPELESS = 4.0
"""If the first bfloat16 product takes this many times as long, the large ones, seconds each, are left out."""
REPEATS = 10
"""Measurements of each type, alternating; the fastest counts, so that other work on the machine decides nothing."""
WORTH = 1.2
"""bfloat16 must multiply this many times faster than float32: with less, its rounding is not worth it."""


def compute_dtype(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """Return the type of weights and activations; master weights, losses and optimizer state stay float32.

    `auto` multiplies matrices in both types and picks bfloat16 if that is faster, whatever the hardware is called.
    """
    if precision == "auto":
        return torch.bfloat16 if bfloat16_speedup(device) >= WORTH else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@functools.cache
def bfloat16_speedup(device: torch.device) -> float:
    """Measure, once, how many times faster `device` multiplies bfloat16 than float32 matrices; 0 where it cannot."""
    try:
        size = SIZE_ON_GPU if device.type == "cuda" else SIZE
        pairs = {dtype: torch.ones(size, size, dtype=dtype, device=device) for dtype in (torch.float32, torch.bfloat16)}
        small = {dtype: matrix[:FIRST_SIZE, :FIRST_SIZE].clone() for dtype, matrix in pairs.items()}
        # One type after the other: in turn, each waits for the threads of the other on a busy machine.
        first = {dtype: min(_seconds(matrix) for _ in range(FIRST_REPEATS)) for dtype, matrix in small.items()}
        if first[torch.bfloat16] > HOPELESS * first[torch.float32]:
            return first[torch.float32] / first[torch.bfloat16]
        for matrix in pairs.values():  # the first product of a type includes its setup
            _seconds(matrix)
        rounds = [{dtype: _seconds(matrix) for dtype, matrix in pairs.items()} for _ in range(REPEATS)]
    except (RuntimeError, TypeError):  # the device has no such product
        return 0.0
    return min(seconds[torch.float32] for seconds in rounds) / min(seconds[torch.bfloat16] for seconds in rounds)


def _seconds(matrix: Tensor) -> float:
    start = time.perf_counter()
    product = matrix @ matrix
    float(product[0, 0])  # waits for a device that computes in the background
    return time.perf_counter() - start
