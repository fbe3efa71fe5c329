"""Checkpoints that hold a number: saved, loaded whole, listed."""

from collections.abc import Callable
from pathlib import Path

import torch

from rlhf.training.storage.checkpoint import CheckpointStore


def save(store: CheckpointStore, step: int, value: float | None = None) -> Path:
    """Save a checkpoint that holds `value`, or the number of its step."""
    value = float(step) if value is None else value
    tensors = {
        "model": {"weight": torch.full((64, 3), value)},
        "optimizer": {"exp_avg.weight": torch.full((4,), value)},
    }
    return store.save(step, tensors, {"value": value})


def value(store: CheckpointStore, on_skip: Callable[[str], None] = lambda line: None) -> float:
    """Load the newest checkpoint whole, check that its parts agree, and return the number that it holds."""
    newest = store.latest(on_skip)
    assert newest is not None
    value = newest.state["value"]
    assert torch.equal(newest.tensors("model")["weight"], torch.full((64, 3), value))
    assert torch.equal(newest.tensors("optimizer")["exp_avg.weight"], torch.full((4,), value))
    return float(value)


def names(directory: Path) -> list[str]:
    """The names in a directory, in order."""
    return sorted(path.name for path in directory.iterdir())
