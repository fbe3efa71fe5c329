"""The measured rate at which this machine multiplies matrices: the 100 % of a utilisation."""

import platform
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

FIRST_FLOPS = 2**28
"""Operations of the first product: 10 ms at 27 GFLOP/s."""
MAX_WEIGHTS = 2**23
"""Most weights of the matrix: a larger one no longer changes the rate, only the time to measure it."""
REPEATS = 3
"""Products of each size; the fastest counts, since only disturbances make one slower."""


def matrix_rate(
    shape: tuple[int, int], num_rows: int, dtype: torch.dtype, device: torch.device, *, seconds: float = 0.4
) -> float:
    """Return the highest rate, in FLOP/s, of multiplying tokens with a weight matrix.

    Args:
        shape: [O, I] of the matrix; a very large one is measured with fewer outputs.
        num_rows: most tokens multiplied at once; fewer are tried first.
        dtype: of tokens and weights.
        device: where to multiply.
        seconds: time limit for all sizes; one size is always measured.
    """
    numbers = torch.Generator(device).manual_seed(0)  # the global generator belongs to the run
    outputs, inputs = min(shape[0], MAX_WEIGHTS // shape[1]), shape[1]
    weight = torch.rand(outputs, inputs, generator=numbers, device=device).to(dtype)
    deadline = time.perf_counter() + seconds
    rows, best = max(1, min(num_rows, FIRST_FLOPS // (2 * weight.numel()))), 0.0
    while True:
        tokens = torch.rand(rows, inputs, generator=numbers, device=device).to(dtype)
        fastest = min(_seconds(tokens, weight) for _ in range(REPEATS))
        best = max(best, 2.0 * rows * weight.numel() / fastest)
        rows, growth = min(2 * rows, num_rows), min(2.0, num_rows / rows)
        if time.perf_counter() + REPEATS * growth * fastest > deadline:
            return best


def _seconds(tokens: Tensor, weight: Tensor) -> float:
    _wait(tokens.device)
    started = time.perf_counter()
    functional.linear(tokens, weight)
    _wait(tokens.device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def processor_name() -> str:
    """Return the processor's name as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else "unknown processor"
