"""Deterministic computing on CUDA: the same numbers from the same inputs, as a CPU gives them anyway."""

import os
from collections.abc import MutableMapping

import torch

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""The variable that cuBLAS reads when it starts: with workspaces of a fixed size its sums have a fixed order."""
SIZE = ":4096:8"
"""What torch's documentation of `use_deterministic_algorithms` asks for."""
_set_here = False


def use_determinism(*, wanted: bool, environment: MutableMapping[str, str] = os.environ) -> None:
    """Make torch compute deterministically, or take back what an earlier stage of this process made it do.

    An operation without a deterministic way is refused by torch. Attention is computed in ways that are deterministic
    and that do not depend on whether gradients are kept: flash attention, or else plain products. Call it before
    anything is computed on the device.

    Args:
        wanted: what the config says; what the user set elsewhere stays when it says no.
        environment: where cuBLAS looks.
    """
    global _set_here
    if wanted:
        environment.setdefault(WORKSPACE, SIZE)
    if wanted or _set_here:
        torch.use_deterministic_algorithms(wanted)
        torch.backends.cuda.enable_mem_efficient_sdp(not wanted)
        torch.backends.cuda.enable_cudnn_sdp(not wanted)
        _set_here = wanted
