"""Which number type a run computes in."""

from typing import Literal

import torch


def compute_dtype(precision: Literal["auto", "float32", "bfloat16"], device: torch.device) -> torch.dtype:
    """Return the type of weights and activations; master weights, losses and optimizer state stay float32.

    `auto` takes bfloat16 where the hardware multiplies it natively: a GPU that says so, a CPU with AVX512-BF16 or AMX.
    """
    if precision == "auto":
        return torch.bfloat16 if _has_native_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _has_native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
