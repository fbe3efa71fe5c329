"""How much a save needs of the disk, and whether the disk has it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from rlhf.errors import CheckpointError

FREE_SPACE_FACTOR = 1.1
"""Free bytes that a save requires, as a multiple of the bytes it will write."""
HEADER_BYTES_PER_TENSOR = 512
"""An upper bound on what safetensors and the manifest write about one tensor besides its numbers."""


def check_free(target: Path, needed: int) -> None:
    """Refuse to write a checkpoint of `needed` bytes to `target` where there is too little space.

    Raises:
        CheckpointError: says how much is needed, and how much is free.
    """
    free, wanted = free_bytes(target.parent), int(needed * FREE_SPACE_FACTOR)
    if free < wanted:
        raise CheckpointError(
            f"{target}: not enough disk space: {wanted} bytes needed, {free} free; older checkpoints are kept; "
            "free some space and start again with resume=auto"
        )


def num_bytes(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Return how many bytes groups of tensors take, at most."""
    return sum(
        tensor.numel() * tensor.element_size() + HEADER_BYTES_PER_TENSOR
        for group in tensors.values()
        for tensor in group.values()
    )


def free_bytes(directory: Path) -> int:
    """Return the free bytes of the disk of a directory, which need not exist yet."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free
