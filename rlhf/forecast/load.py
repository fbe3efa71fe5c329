"""What a stage has to do: floating-point operations by the way in which they are done, weights updated, bytes moved."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import nn

WEIGHT = 4
"""Bytes of a float32 weight."""
CHECKPOINT = 12
"""Bytes of a trained weight in a checkpoint: the master and Adam's two moments, in float32."""
LOADED = 3
"""How often a model's bytes move in a stage: digest of its files, loading, export."""
PHASES = {"generation": "sampling", "reward": "inference", "reference": "inference"}
"""The phases of a PPO step that keep no gradients, and how they are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The work of a stage over all processes, in the units of its fields."""

    training: float = 0.0
    """Operations of forward and backward passes that keep gradients."""
    inference: float = 0.0
    """Operations of passes over whole rows without gradients."""
    sampling: float = 0.0
    """Operations of decoding, at 128 rows or more; fewer rows count as more operations, see `decoding`."""
    encoding: float = 0.0
    """Operations in float32 whatever the compute type."""
    updates: float = 0.0
    """Weights times optimizer steps."""
    num_bytes: float = 0.0
    """Read, hashed or written."""
    seconds: float = 0.0
    """What was measured in seconds, or is known in them."""

    def __add__(self, other: "Load") -> "Load":
        """Return both together."""
        return Load(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def times(self, factor: float) -> "Load":
        """Return the same work, `factor` times."""
        return Load(**{each.name: factor * getattr(self, each.name) for each in fields(self)})


HALF_ROWS = 12
"""Rows at which decoding has half of its best rate: the weights are read once a step, however many rows there are.

From the shares of 0.41, 0.60 and 0.63 that `benchmarks/sampling_vs_generate.py` reached with 16, 64 and 128 rows.
"""


def decoding(flops: float, rows: int) -> Load:
    """Return the work of sampling, at so many rows a batch."""
    return Load(sampling=flops * (rows + HALF_ROWS) / rows)


def of_phases(flops: Mapping[str, float], rows: int) -> Load:
    """Return the work of a PPO step's operations by phase; `rows` are decoded together."""
    by_way = {"training": 0.0, "inference": 0.0, "sampling": 0.0}
    for phase, number in flops.items():
        by_way[PHASES.get(phase, "training")] += number
    return Load(training=by_way["training"], inference=by_way["inference"]) + decoding(by_way["sampling"], rows)


def of_model(model: nn.Module, *, num_updates: int, every: int | None, num_steps: int) -> Load:
    """Return what a trained model adds to its passes.

    Args:
        model: with `requires_grad` flags.
        num_updates: optimizer steps.
        every: steps between checkpoints; None for no checkpoint.
        num_steps: of the loop.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    checkpoints = num_steps // every if every else 0
    return read_once(model).times(LOADED) + Load(
        updates=float(trained * num_updates), num_bytes=float(CHECKPOINT * trained * checkpoints)
    )


def read_once(model: nn.Module) -> Load:
    """Return the work of reading a model's weights."""
    return Load(num_bytes=float(WEIGHT * sum(p.numel() for p in model.parameters())))
