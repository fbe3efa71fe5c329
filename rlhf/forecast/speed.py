"""How long this machine takes for a load: a measured rate of matrix products, and what lies between the products.

Between them numbers are read and written, norms, gates, scores, logits. That takes a time for each byte which is nearly
the same everywhere, so its part grows with the rate: with SmolLM2-135M on 2 cores a training pass reached 85 % of
68 GFLOP/s in float32 (AVX2), and 70 % of 430 GFLOP/s in bfloat16 (AVX512-BF16). docs/profile.md says how to measure it.
"""

import os
from dataclasses import dataclass

import torch

from rlhf.forecast.load import Load
from rlhf.training.telemetry.machine import matrix_rate

PASSES = 1.1e-12
"""Seconds between the products of a pass, for each of their operations and each byte of a number, on one core."""
SAMPLING = 2.0e-12
"""The same in decoding with many rows."""
ENCODING = 1.6e-12
"""The same in a sentence encoder."""
FLOAT32 = 4
"""Bytes of a number."""
UPDATED_WEIGHTS = 2.5e8
"""Weights a second that each process updates: memory is the limit, and threads and processes share it."""
MOVED_BYTES = 5e8
"""Bytes a second of a model that is hashed, read, or written and synced."""
START = 1.5
"""Seconds that a stage takes however small it is."""
SECONDS = 0.3
"""Time to measure a rate in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast this machine multiplies, in operations a second."""

    rate: float
    """In the compute type."""
    float32: float
    num_bytes: int
    """Of a number of the compute type."""
    cores: int
    """That all processes together compute on."""

    def seconds(self, load: Load) -> float:
        """Return how long a stage with this load takes."""
        passes, between = load.training + load.inference, self.num_bytes / self.cores
        computed = (passes + load.sampling) / self.rate + (passes * PASSES + load.sampling * SAMPLING) * between
        encoded = load.encoding * (1 / self.float32 + ENCODING * FLOAT32 / self.cores)
        return START + load.seconds + load.num_bytes / MOVED_BYTES + computed + encoded + load.updates / UPDATED_WEIGHTS


def measured(matrix: tuple[int, int], num_rows: int, dtype: torch.dtype) -> Speed:
    """Measure, in under a second, how fast all processes together multiply a microbatch with a matrix [O, I].

    One process measures, with the threads that a process of this run has.
    """
    num = num_processes()

    def rate(kind: torch.dtype) -> float:
        return num * matrix_rate(matrix, num_rows, kind, torch.device("cpu"), seconds=SECONDS)

    own = rate(dtype)
    float32 = own if dtype == torch.float32 else rate(torch.float32)
    return Speed(rate=own, float32=float32, num_bytes=dtype.itemsize, cores=num * torch.get_num_threads())


def num_processes() -> int:
    """Return how many processes a launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
