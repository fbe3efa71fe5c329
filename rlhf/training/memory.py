"""How much memory this process has used at most."""

import resource
import sys

import torch


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_peak_memory_bytes(device: torch.device) -> int | None:
    """Return the most memory that tensors of this process took on a GPU so far, in bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
