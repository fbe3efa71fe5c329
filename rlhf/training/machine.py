"""How fast this machine multiplies matrices, measured: what a utilisation is a share of."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

FIRST_ROWS = 256
"""Tokens of the first product: small, so that a slow machine is done with a large matrix in time."""
REPEATS = 3
"""Products of one size in a row; the fastest counts, since only disturbances make one slower."""


def matrix_rate(
    shape: tuple[int, int], num_rows: int, dtype: torch.dtype, device: torch.device, *, seconds: float = 0.4
) -> float:
    """Return the highest rate, in FLOP/s, of multiplying tokens with a weight matrix.

    Args:
        shape: [O, I] of the matrix.
        num_rows: tokens multiplied at once, at most; fewer are tried first.
        dtype: of both.
        device: where.
        seconds: after which no further size is begun.
    """
    numbers = torch.Generator(device).manual_seed(0)  # the global generator belongs to the run
    weight = torch.rand(shape, generator=numbers, device=device).to(dtype)
    deadline, rows, best = time.perf_counter() + seconds, min(FIRST_ROWS, num_rows), 0.0
    while best == 0.0 or time.perf_counter() < deadline:
        tokens = torch.rand(rows, shape[1], generator=numbers, device=device).to(dtype)
        fastest = min(_seconds(lambda: functional.linear(tokens, weight), device) for _ in range(REPEATS))  # noqa: B023
        best = max(best, 2.0 * rows * weight.numel() / fastest)
        rows = min(2 * rows, num_rows)
    return best


def _seconds(product: Callable[[], Tensor], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    product()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
