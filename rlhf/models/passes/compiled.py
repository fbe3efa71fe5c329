"""Transformer blocks compiled by torch: elementwise work between two matrix products becomes one pass over memory."""

import logging
import shutil
from importlib.util import find_spec
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import blocks
from rlhf.models.passes.fused import leave_kernels

LONG_RUN = 1_000_000
"""Tokens forward and backward from which `auto` compiles: compiling takes 20 to 60 s and makes passes of SmolLM2-135M
4 to 10 % shorter (2 cores with AVX512, 1,280 tokens per pass), so it pays off after about a million tokens."""
NEEDED = {
    "g++": "a C++ compiler",
    "triton": "Triton (pip install 'rlhf-ppo[gpu]')",
    "gcc": "a C compiler, with which Triton makes what starts its kernels",
}
"""What torch compiles with, and what it is."""
log = logging.getLogger(__name__)


def compiles(choice: Literal["auto", "on", "off"], num_tokens: int, device: torch.device) -> bool:
    """Decide whether to compile blocks: `auto` does so for long runs, and logs when it cannot for lack of a compiler.

    Args:
        choice: the config's `compile`.
        num_tokens: about how many tokens the run passes forward and backward.
        device: where it computes.

    Raises:
        ConfigError: `on` without a compiler.
    """
    lacking = _lacking(device)
    if choice == "on" and lacking:
        raise ConfigError(
            f"compile: on needs {NEEDED[lacking]}, and no {lacking} was found - install one, or set compile: off"
        )
    is_wanted = choice == "on" or (choice == "auto" and num_tokens >= LONG_RUN)
    if is_wanted and lacking:
        log.warning("transformer blocks run as they are, not compiled: no %s found", lacking)
    return is_wanted and not lacking


def _lacking(device: torch.device) -> str | None:
    """Return what torch needs to compile for a device and this machine lacks, None when it is all there."""
    if device.type != "cuda":
        return None if shutil.which("g++") else "g++"
    if find_spec("triton") is None:
        return "triton"
    return None if any(shutil.which(name) for name in ("gcc", "clang", "cc")) else "gcc"


def compile_blocks(*models: nn.Module) -> None:
    """Make torch compile the blocks of models on their first call, once for all shapes.

    A block that torch cannot compile runs uncompiled, with a line in the log.
    """
    torch._dynamo.config.suppress_errors = True
    for model in models:
        assert isinstance(model, PreTrainedModel)
        leave_kernels(model)  # torch would stop at each of them
        for block in blocks(model):
            block.compile(dynamic=True)


def is_compiled(model: nn.Module) -> bool:
    """Whether a part of the model was handed to `compile_blocks`."""
    return any(module._compiled_call_impl is not None for module in model.modules())
