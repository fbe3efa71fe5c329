"""What the machine can do: matrix products at training and decode shapes, and memory bandwidth.

`ratio` is the share of the limit that a product reaches: its least time (operations at the best product of its type,
or bytes of its weights at the measured bandwidth, whichever is longer) divided by its time. Decode products cycle
through as many different weight matrices as the model has blocks, so that weights come from memory as in a real step.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from arithmetic import Limits
from options import Parser, parser_without_model
from rows import Row, circumstances, collect

HIDDEN, INTERMEDIATE, VOCABULARY, BLOCKS = 576, 1536, 49152, 30
"""SmolLM2-135M."""
SQUARE = 2048
TRAINING_ROWS = 1280
"""Tokens of the PPO update that `ppo_vs_trl.py` measures: 16 x (32 + 48)."""
DECODE_ROWS = (16, 64, 128)
BUDGET, QUICK_BUDGET = 0.5, 0.05
"""Seconds for which each product is repeated."""
STREAM_BYTES = 1 << 29
"""Read for the bandwidth: far more than a last-level cache."""


def best_seconds(work: Callable[[], object], budget: float) -> float:
    """Return the shortest time of `work`, repeated for about `budget` seconds after one call to warm up."""
    work()
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < budget:
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    return min(times)


def budget_of(options: Any) -> float:
    """Return for how many seconds to repeat each product."""
    return QUICK_BUDGET if options.quick else BUDGET


def measure_limits(dtype: torch.dtype, budget: float = BUDGET) -> Limits:
    """Measure the best matrix product of a type (large and square, or at a training shape) and the memory bandwidth."""
    shapes = [(SQUARE, SQUARE, SQUARE), (TRAINING_ROWS, HIDDEN, INTERMEDIATE), (TRAINING_ROWS, HIDDEN, VOCABULARY)]
    best = max(_flops(*shape) / _product_seconds(*shape, dtype, budget) for shape in shapes)
    return Limits(flops=best, bytes=_bandwidth(budget))


def _product_seconds(rows: int, inner: int, columns: int, dtype: torch.dtype, budget: float) -> float:
    left, weight = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    with torch.inference_mode():
        return best_seconds(lambda: torch.nn.functional.linear(left, weight), budget)


def _decode_seconds(rows: int, inner: int, columns: int, dtype: torch.dtype, budget: float) -> float:
    left = torch.randn(rows, inner, dtype=dtype)
    weights = [torch.randn(columns, inner, dtype=dtype) for _ in range(BLOCKS if columns < VOCABULARY else 1)]

    def through() -> None:
        for weight in weights:
            torch.nn.functional.linear(left, weight)

    with torch.inference_mode():
        return best_seconds(through, budget) / len(weights)


def _bandwidth(budget: float) -> float:
    data = torch.ones(STREAM_BYTES // 4, dtype=torch.float32)
    return STREAM_BYTES / best_seconds(data.sum, budget)


def _flops(rows: int, inner: int, columns: int) -> float:
    return 2.0 * rows * inner * columns


def product_rows(dtype: torch.dtype, limits: Limits, budget: float) -> Iterator[Row]:
    """Yield a row for each product of the model at training and at decode shapes."""
    weights = [(HIDDEN, HIDDEN), (HIDDEN, INTERMEDIATE), (INTERMEDIATE, HIDDEN), (HIDDEN, VOCABULARY)]
    for weight in weights:
        seconds = _product_seconds(TRAINING_ROWS, *weight, dtype, budget)
        yield _row("training", dtype, limits, (TRAINING_ROWS, *weight), seconds)
    for num_rows in DECODE_ROWS:
        for weight in weights:
            seconds = _decode_seconds(num_rows, *weight, dtype, budget)
            yield _row("decode", dtype, limits, (num_rows, *weight), seconds)


def _row(use: str, dtype: torch.dtype, limits: Limits, shape: tuple[int, int, int], seconds: float) -> Row:
    num_rows, inner, columns = shape
    least = max(_flops(*shape) / limits.flops, inner * columns * dtype.itemsize / limits.bytes)
    share = least / seconds
    name = f"{use} [{num_rows}, {inner}] x [{inner}, {columns}] {str(dtype).removeprefix('torch.')}"
    return {
        "benchmark": "limits",
        "name": name,
        "ratio": share,
        "share_of_limit": share,
        "ours": {"seconds": seconds, "gflops": _flops(*shape) / seconds / 1e9},
        **circumstances(),
    }


def arguments() -> Parser:
    """Return the command line of this benchmark."""
    return parser_without_model(__doc__)


def measured(budget: float) -> Iterator[Row]:
    """Yield, for each type, a row with its limits and one for each product."""
    for dtype in (torch.float32, torch.bfloat16):
        limits = measure_limits(dtype, budget)
        name = str(dtype).removeprefix("torch.")
        best = {"gflops": limits.flops / 1e9, "gigabytes_per_second": limits.bytes / 1e9}
        print(f"{name}: {best['gflops']:.0f} GFLOP/s, memory {best['gigabytes_per_second']:.1f} GB/s")
        yield {"benchmark": "limits", "name": f"limit {name}", "ratio": 1.0, "limit": best, **circumstances()}
        yield from product_rows(dtype, limits, budget)


def main() -> None:
    """Measure, print the table, write the JSON."""
    made = arguments()
    options = made.parse_args()
    collect(measured(budget_of(options)), made, options.json)


if __name__ == "__main__":
    main()
