"""How long this machine takes for a load: a measured rate of matrix products, times what each phase makes of it.

The shares were measured once, with SmolLM2-135M (docs/profile.md says how); the rate is measured here and now.
"""

import os
from dataclasses import dataclass

import torch

from rlhf.forecast.load import Load
from rlhf.training.telemetry.machine import matrix_rate

TRAINING = 0.70
"""Share of the rate that forward and backward passes reach, both together."""
INFERENCE = 0.69
"""Of passes without gradients."""
SAMPLING = 0.55
"""Of decoding with many rows."""
ENCODING = 0.57
"""Of a sentence encoder in float32."""
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

    def seconds(self, load: Load) -> float:
        """Return how long a stage with this load takes."""
        passes = load.training / TRAINING + load.inference / INFERENCE + load.sampling / SAMPLING
        multiplied = passes / self.rate + load.encoding / (ENCODING * self.float32)
        return START + load.seconds + load.num_bytes / MOVED_BYTES + multiplied + load.updates / UPDATED_WEIGHTS


def measured(matrix: tuple[int, int], num_rows: int, dtype: torch.dtype) -> Speed:
    """Measure, in under a second, how fast all processes together multiply a microbatch with a matrix [O, I].

    One process measures, with the threads that a process of this run has.
    """
    cpu, num = torch.device("cpu"), num_processes()
    rate = num * matrix_rate(matrix, num_rows, dtype, cpu, seconds=SECONDS)
    if dtype == torch.float32:
        return Speed(rate=rate, float32=rate)
    return Speed(rate=rate, float32=num * matrix_rate(matrix, num_rows, torch.float32, cpu, seconds=SECONDS))


def num_processes() -> int:
    """Return how many processes a launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
