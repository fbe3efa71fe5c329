"""Gradient checkpointing: a block keeps its input alone, and runs again in the backward pass.

transformers' own is off in evaluation mode, in which PPO trains: dropout would falsify the ratio.
"""

import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import blocks


def use_checkpointing(model: PreTrainedModel) -> None:
    """Let the blocks of a model run again in the backward pass; a pass without gradients, and decoding, do not change.

    A block computes twice what it computed once, so gradients stay bit for bit the same. Copies of the model do so too.

    Raises:
        ConfigError: the model keeps its blocks in a way that is not known here.
    """
    try:
        stack = blocks(model)
    except ConfigError:
        raise ConfigError(
            f"model.gradient_checkpointing: no stack of blocks found in {type(model).__name__} - set it to false"
        ) from None
    for block in stack:
        # A bound method: a copy of the block gets one that is bound to the copy.
        block.forward = types.MethodType(_forward, block)


def is_checkpointed(model: nn.Module) -> bool:
    """Whether the model's blocks run again in the backward pass."""
    return any(getattr(vars(module).get("forward"), "__func__", None) is _forward for module in model.modules())


def _forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run a block; where it needs gradients, keep nothing but its inputs."""
    run = types.MethodType(type(block).forward, block)
    if not torch.is_grad_enabled() or not _needs_gradients(block, args):
        return run(*args, **kwargs)
    has_dropout = any(isinstance(part, nn.Dropout) and part.training and part.p > 0 for part in block.modules())
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=has_dropout, **kwargs)


_forward.same_output = True  # type: ignore[attr-defined]  # for the sampler, which computes blocks in its own way


def _needs_gradients(block: nn.Module, args: tuple[Any, ...]) -> bool:
    inputs = (each for each in args if isinstance(each, Tensor))
    return any(each.requires_grad for each in (*inputs, *block.parameters()))
