"""Whether something is a part of peft, asked without importing it: where nobody has, nothing is one.

Importing peft takes half a second of a core, and a second more where bitsandbytes is installed. Most runs need neither.
"""

import sys
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper
    from typing_extensions import TypeIs


def is_adapted(model: object) -> "TypeIs[PeftModel]":
    """Whether a model is one of peft, with an adapter."""
    return _is_one("peft", "PeftModel", model)


def is_lora_layer(module: object) -> "TypeIs[LoraLayer]":
    """Whether a module is a layer with a low-rank adapter."""
    return _is_one("peft.tuners.lora", "LoraLayer", module)


def is_saved_with_adapter(module: object) -> "TypeIs[ModulesToSaveWrapper]":
    """Whether a module has a copy that is trained along with an adapter."""
    return _is_one("peft.utils", "ModulesToSaveWrapper", module)


def has_adapter_layers(model: nn.Module) -> bool:
    """Whether a model has layers of an adapter, of whatever kind."""
    return any(_is_one("peft.tuners.tuners_utils", "BaseTunerLayer", module) for module in model.modules())


def _is_one(home: str, kind: str, thing: object) -> bool:
    module = sys.modules.get(home)
    return module is not None and isinstance(thing, getattr(module, kind))
