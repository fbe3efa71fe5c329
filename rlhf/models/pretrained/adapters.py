"""Low-rank adapters: adding them, finding the base of a saved one, reading weights without or with them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.errors import ConfigError
from rlhf.models.passes.quantized import QuantizedLinear, quantized_layers
from rlhf.models.pretrained.adapted import is_lora_layer, is_saved_with_adapter
from rlhf.models.pretrained.directory import read_object
from rlhf.models.pretrained.quiet import quiet_transformers

if TYPE_CHECKING:
    from peft import PeftModel

BASE = "base_model.json"
"""Beside a saved adapter: how its base is found after both were moved together."""


def is_adapter(path: str) -> bool:
    """Whether a path is the directory of an adapter (peft)."""
    return (Path(path) / "adapter_config.json").is_file()


def base_of(path: str) -> str:
    """Return the base of an adapter directory: where its config says, or where both were moved together.

    Raises:
        ConfigError: it names none, or none is there.
    """
    directory = Path(path)
    named = read_object(directory / "adapter_config.json").get("base_model_name_or_path")
    if not named or not isinstance(named, str):
        raise ConfigError(f"{path}: adapter_config.json names no base model - set base_model_name_or_path")
    if not Path(named).is_absolute() or _is_directory(Path(named)):
        return named
    beside = _base_beside(directory)
    if beside is None:
        raise ConfigError(
            f"{path}: its base model {named} is not there - put it there, or set base_model_name_or_path in "
            f"{path}/adapter_config.json to where it is"
        )
    return str(beside)


def remember_base(directory: Path, base: str) -> None:
    """Write beside a saved adapter how its base is called below the directory that holds both: `sft/policy`."""
    place = Path(base).resolve()
    common = Path(os.path.commonpath([place, directory.resolve()]))
    if place.is_dir() and common != Path(common.anchor):
        content = {"base_model": str(place.relative_to(common))}
        (directory / BASE).write_text(json.dumps(content) + "\n", encoding="utf-8")


def _base_beside(directory: Path) -> Path | None:
    """Find the base below a directory that holds the adapter too, the nearest first."""
    file = directory / BASE
    if not file.is_file():
        return None
    own, name = directory.resolve(), str(read_object(file).get("base_model"))
    found = (above / name for above in own.parents if _is_directory(above / name) and above / name != own)
    return next(found, None)


def _is_directory(path: Path) -> bool:
    """Whether there is such a directory; a name that no file can have is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def add_lora(
    model: PreTrainedModel, *, r: int, alpha: float, dropout: float, target_modules: str | list[str]
) -> "PeftModel":
    """Freeze the model and put low-rank adapters of rank `r` on its linear layers; a scalar head is trained in full."""
    from peft import LoraConfig, TaskType, get_peft_model  # not every run needs it

    adapters = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft annotates int, and divides by r as a float
        lora_dropout=dropout,
        target_modules=target_modules,
        task_type=TaskType.SEQ_CLS if hasattr(model, "score") else TaskType.CAUSAL_LM,
    )
    with quiet_transformers():
        return get_peft_model(model, adapters)


def trained_head(head: nn.Module) -> nn.Module:
    """Return the copy of a head that is trained along with an adapter, or the head itself."""
    return head.modules_to_save[head.active_adapters[0]] if is_saved_with_adapter(head) else head


def base_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights without the adapter, by their names in a model without one; quantized ones as float32."""
    return {_plain(name): tensor for name, tensor in _whole_state(model).items() if ".lora_" not in name}


def merged_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights with the adapter added, quantized ones as float32; the model itself does not change."""
    state = {
        _plain(name): tensor
        for name, tensor in _whole_state(model).items()
        if ".lora_" not in name and ".original_module." not in name
    }
    for name, module in model.named_modules():
        if is_lora_layer(module):
            key = f"{_plain(name)}.weight"
            delta: Tensor = module.get_delta_weight(module.active_adapters[0])  # type: ignore[attr-defined]
            state[key] = state[key] + delta
    return state


@torch.no_grad()
def load_merged(model: PreTrainedModel, state: Mapping[str, Tensor]) -> list[nn.Parameter]:
    """Load what `merged_state` returned into a float32 model: the base becomes the sum, and the adapter 0.

    Returns:
        The float32 weights of plain layers that took the place of quantized ones, which cannot hold the sum.
    """
    made = [_unquantized(model, name, layer, state) for name, layer in quantized_layers(model)]
    for name, tensor in model.state_dict().items():
        if ".lora_B" in name:
            tensor.zero_()
        elif ".lora_" not in name and ".original_module." not in name:
            tensor.copy_(state[_plain(name)])
    return made


def _unquantized(
    model: PreTrainedModel, name: str, layer: QuantizedLinear, state: Mapping[str, Tensor]
) -> nn.Parameter:
    plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    whole = state[f"{_plain(name)}.weight"].to(layer.weight.device, torch.float32, copy=True)
    plain.weight, plain.bias = nn.Parameter(whole, requires_grad=False), layer.bias
    model.set_submodule(name, plain)
    return plain.weight


def _whole_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a model's weights, what is quantized as float32 numbers: those that it multiplies with."""
    state: dict[str, Tensor] = model.state_dict()
    for name, layer in quantized_layers(model):
        del state[f"{name}.scale"]
        state[f"{name}.weight"] = layer.dequantized(torch.float32)
    return state


def _plain(name: str) -> str:
    return name.replace(".base_layer", "").replace(".modules_to_save.default", "")
