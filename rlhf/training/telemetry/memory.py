"""The peak memory of this process, and how much memory is available to it."""

import os
import resource
import sys
from pathlib import Path

import torch

_PROC = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_peak_memory_bytes(device: torch.device) -> int | None:
    """Return the peak memory of this process's tensors on a GPU so far, in bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def available_memory_bytes(device: torch.device) -> int:
    """Return the bytes that could still be allocated on `device`.

    On a CPU this is what the kernel calls available (free pages and reclaimable caches), within the limit of a
    container; if the kernel does not say, the whole physical memory.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _PROC.read_text(encoding="ascii").splitlines() if _PROC.exists() else ():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    return min(available, _container_bytes(available))


def _container_bytes(otherwise: int) -> int:
    """Return what the limit of a container (cgroup v2) leaves, or `otherwise` if there is no limit."""
    try:
        limit, used = (int((_CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such files, or the limit is the word max
        return otherwise
    return max(limit - used, 0)
