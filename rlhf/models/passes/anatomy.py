"""The parts of a Hugging Face model that we call on their own: trunk, blocks, norm, logits."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.errors import ConfigError
from rlhf.models.passes.packing import trunk_states


def trunk(model: PreTrainedModel) -> nn.Module:
    """Return the part that yields hidden states, without any head."""
    return model.base_model


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the stack of transformer blocks.

    Raises:
        ConfigError: the model stores them in another way.
    """
    depth = model.config.get_text_config().num_hidden_layers
    for module in trunk(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ConfigError(f"{type(model).__name__}: no stack of {depth} blocks found - leave trainable_layers unset")


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """Return the norm after the last block, None for models without one."""
    for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm"):
        norm = getattr(trunk(model), name, None)
        if isinstance(norm, nn.Module):
            return norm
    return None


def hidden_states(model: PreTrainedModel, input_ids: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return the trunk's last hidden states [B, S, H] for right-padded ids [B, S].

    With the real tokens of each row, `lengths` [B], a model that packs rows computes nothing for padding.
    """
    return trunk_states(trunk(model), input_ids, lengths)


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return the vocabulary logits [N, V] of hidden states [N, H], as the model's own forward computes them."""
    output: Tensor = model.get_output_embeddings()(hidden)
    softcap, factor = logit_shape(model)
    if softcap is not None:
        output = (output / softcap).tanh() * softcap
    return output if factor == 1.0 else output * factor


def logit_shape(model: PreTrainedModel) -> tuple[float | None, float]:
    """Return what happens to the output of the last linear map: a soft cap (Gemma 2), a factor (Cohere, Granite)."""
    config = model.config.get_text_config()
    factor = getattr(config, "logit_scale", None) or 1.0
    return getattr(config, "final_logit_softcapping", None), factor / (getattr(config, "logits_scaling", None) or 1.0)


@torch.no_grad()
def check_logits(model: PreTrainedModel, path: str) -> None:
    """Compare `logits` with the model's own forward on two tokens.

    Raises:
        ConfigError: the architecture computes its logits in another way.
    """
    ids = torch.tensor([[0, 1]], device=model.device)
    theirs = model(input_ids=ids, use_cache=False).logits[0]
    if not theirs.isfinite().all():
        raise ConfigError(f"{path}: its logits are not finite: the weights hold NaN or infinity - save the model again")
    ours = logits(model, hidden_states(model, ids)[0])
    # The same float32 operations, perhaps in another order.
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4):
        raise ConfigError(f"{path}: {type(model).__name__} makes its logits in a way that rlhf does not know")


def hidden_size(model: PreTrainedModel) -> int:
    """Return H, the width of the states that pass from block to block."""
    return int(model.config.get_text_config().hidden_size)


def head_width(model: PreTrainedModel) -> int:
    """Return the width of the trunk's last states, which output embedding or score read: H, but less in OPT-350m."""
    head = model.get_output_embeddings() or getattr(model, "score", None)
    return hidden_size(model) if head is None else int(head.weight.shape[-1])


def switch_off_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Put the model in evaluation mode and set every dropout to 0, so that training computes what sampling computes."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    model.eval()
    return model
