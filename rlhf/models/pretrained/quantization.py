"""A model's linear layers quantized, on the CPU, while its files are read or in memory; and who may not be."""

from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import trunk
from rlhf.models.passes.quantized import LAYERS, Kind, library, quantized_layers

_TRACES = ("hf_quantizer", "quantization_method", "is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit")
"""What transformers notes on a model that it quantized, and by which it and peft expect layers of bitsandbytes."""


def check_quantizes(device: torch.device) -> None:
    """Refuse to quantize where bitsandbytes is not installed, or does not know the device.

    Raises:
        ConfigError: says which.
    """
    known = sorted(library().supported_torch_devices)
    if device.type not in known:
        raise ConfigError(
            f"model.quantize: bitsandbytes computes on {', '.join(known)}, found {device.type} - leave it out"
        )


def while_loading(kind: Kind | None) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that quantize each layer as soon as it is read; none for None."""
    if kind is None:
        return {}
    library()
    how = {"load_in_8bit": True} if kind == "int8" else {"load_in_4bit": True, "bnb_4bit_quant_type": kind}
    return {"quantization_config": BitsAndBytesConfig(**how), "device_map": {"": "cpu"}}


def take_over(model: PreTrainedModel) -> None:
    """Put our layers in place of those with which transformers quantized, if it did, and remove its notes about it."""
    if getattr(model, "hf_quantizer", None) is None:
        return
    ours = {library().nn.Linear4bit: LAYERS["nf4"], library().nn.Linear8bitLt: LAYERS["int8"]}
    for name, module in list(model.named_modules()):
        if type(module) in ours:
            _check_matrix(model, module.source_cls)
            model.set_submodule(name, ours[type(module)].holding(module))
    for trace in _TRACES:
        vars(model).pop(trace, None)
    for part in model.modules():
        for trace in ("quantization_config", "_is_quantized"):
            vars(getattr(part, "config", None) or nn.Module()).pop(trace, None)


@torch.no_grad()
def quantize(model: PreTrainedModel, kind: Kind) -> None:
    """Quantize in place the linear layers of a trunk that are not quantized yet; embeddings and heads stay as they are.

    Args:
        model: on the CPU; on the meta device its layers change their sizes alone.
        kind: how weights are held.

    Raises:
        ConfigError: it has none, or keeps its matrices in a way that is not known here.
    """
    for name, module in list(trunk(model).named_modules()):
        _check_matrix(model, type(module))
        if type(module) is nn.Linear:
            make = LAYERS[kind].on_meta if module.weight.is_meta else LAYERS[kind].quantizing
            trunk(model).set_submodule(name, make(module))
    if not quantized_layers(model):
        raise ConfigError(f"model.quantize: {type(model).__name__} has no linear layers to quantize - set it to null")


def what_is_quantized(model: PreTrainedModel) -> str | None:
    """Return in words what is quantized of a model: layers, their share of the weights, bits; None where nothing is."""
    layers = [layer for _, layer in quantized_layers(model)]
    if not layers:
        return None
    num, size = sum(each.num_weights for each in layers), sum(each.num_bytes for each in layers)
    rest = sum(p.numel() for p in model.parameters())
    share, bits = num / (num + rest), 8 * size / num
    return f"{layers[0].kind}: {len(layers)} linear layers, {share:.0%} of the weights, in {bits:.1f} bits each"


def check_whole(model: nn.Module, role: str) -> None:
    """Refuse a model in memory that something else has quantized.

    Raises:
        ConfigError: says so.
    """
    config = getattr(model, "config", None)
    if getattr(model, "is_quantized", False) or getattr(config, "quantization_config", None) is not None:
        raise ConfigError(
            f"{role}: it is quantized already, and rlhf takes whole weights - load it without quantization_config; "
            "model.quantize quantizes the base of an adapter"
        )


def _check_matrix(model: PreTrainedModel, kind: type[nn.Module]) -> None:
    if kind is Conv1D:
        raise ConfigError(
            f"model.quantize: {type(model).__name__} keeps its matrices transposed (Conv1D), which is not supported - "
            "set it to null"
        )
