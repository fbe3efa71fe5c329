"""Low-rank adapters: adding them, and reading a model's weights without or with them."""

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel


def add_lora(
    model: PreTrainedModel, *, r: int, alpha: float, dropout: float, target_modules: str | list[str]
) -> PeftModel:
    """Freeze the model and put low-rank adapters of rank `r` on its linear layers; a scalar head is trained in full."""
    adapters = LoraConfig(
        r=r,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft annotates int, and divides by r as a float
        lora_dropout=dropout,
        target_modules=target_modules,
        task_type=TaskType.SEQ_CLS if hasattr(model, "score") else TaskType.CAUSAL_LM,
    )
    return get_peft_model(model, adapters)


def trained_head(head: nn.Module) -> nn.Module:
    """Return the copy of a head that is trained along with an adapter, or the head itself."""
    return head.modules_to_save[head.active_adapters[0]] if isinstance(head, ModulesToSaveWrapper) else head


def base_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights without the adapter, by their names in a model without one."""
    return {_plain(name): tensor for name, tensor in model.state_dict().items() if ".lora_" not in name}


def merged_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights with the adapter added to them; the model itself does not change."""
    state = {
        _plain(name): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name and ".original_module." not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            key = f"{_plain(name)}.weight"
            delta: Tensor = module.get_delta_weight(module.active_adapters[0])  # type: ignore[attr-defined]
            state[key] = state[key] + delta
    return state


def _plain(name: str) -> str:
    return name.replace(".base_layer", "").replace(".modules_to_save.default", "")
