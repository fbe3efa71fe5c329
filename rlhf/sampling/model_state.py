"""What a captured step of a model depends on: where its weights lie, and what its Python code would do with them."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache

from rlhf.sampling.decoder import takes_prepared_masks

CHANGING_ROTARY = ("dynamic", "longrope")
"""Kinds of rotary positions for which the host reads the longest position."""
SWITCHES = ("_disable_adapters", "_active_adapter", "merged_adapters", "scaling")
"""Attributes of peft's modules by which they choose what they compute."""


def is_capturable(model: Callable[..., Any], cache: DynamicCache) -> bool:
    """Whether a step of a model may be the same kernels on the same memory each time.

    It reads prepared masks, its positions need nothing from the device, and no hook wants to run at each pass (weights
    in shards, offloaded weights, a user's own).

    Args:
        model: what is decoded.
        cache: an empty one for it.
    """
    if not isinstance(model, nn.Module) or not takes_prepared_masks(model, cache):
        return False
    hooked = any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    return not hooked and _rotary_kinds(model.config).isdisjoint(CHANGING_ROTARY)


def addresses(model: nn.Module) -> Hashable:
    """Return where the model's tensors lie, in which form: a step that was captured reads them there."""
    return tuple(
        (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()) for tensor in _tensors_of(model)
    )


def switches(model: nn.Module) -> Hashable:
    """Return what decides, without a change of any weight, which of them a pass reads and how.

    That is the attention and, of adapters (peft), which one is active, switched off or merged, and its scale.
    """
    attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
    found = [str(attention)]
    for module in model.modules():
        own = vars(module)
        found += [f"{name}={own[name]}" for name in SWITCHES if name in own]
        if "forward" in own:  # one that was put into the place of its class's
            found.append(f"forward={getattr(own['forward'], '__func__', own['forward'])}")
    return tuple(found)


def _tensors_of(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        own = vars(module)
        for each in (*module._parameters.values(), *module._buffers.values(), *own.values()):
            if isinstance(each, Tensor):
                yield each


def _rotary_kinds(config: Any) -> set[str]:
    """Return the kinds of rotary positions; kinds of layers may have their own."""
    found = getattr(config, "rope_parameters", None) or {}
    each_kind = [each for each in (found, *found.values()) if isinstance(each, Mapping)]
    return {str(each.get("rope_type", "default")) for each in each_kind}
