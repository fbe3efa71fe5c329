"""The parts of a Hugging Face model that we call on their own: trunk, blocks, head."""

from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.errors import ConfigError


def trunk(model: PreTrainedModel) -> nn.Module:
    """Return the part that yields hidden states, without any head."""
    return model.base_model  # type: ignore[no-any-return]


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Return the stack of transformer blocks."""
    depth = model.config.get_text_config().num_hidden_layers
    for module in trunk(model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ConfigError(f"{type(model).__name__}: no stack of {depth} blocks found - leave trainable_layers unset")


def final_norm(model: PreTrainedModel) -> nn.Module | None:
    """Return the norm after the last block, None for models without one."""
    for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm"):
        norm = getattr(trunk(model), name, None)
        if norm is not None:
            return norm  # type: ignore[no-any-return]
    return None


def hidden_states(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """Return the trunk's last hidden states [B, S, H] for right-padded ids [B, S].

    No mask is passed: causal attention never looks to the right, so padding cannot reach a real token.
    """
    return trunk(model)(input_ids=input_ids, use_cache=False).last_hidden_state  # type: ignore[no-any-return]


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return the vocabulary logits [N, V] of hidden states [N, H], as the model's own forward computes them."""
    output = model.get_output_embeddings()(hidden)
    config = model.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    if softcap is not None:
        output = (output / softcap).tanh() * softcap
    scale = getattr(config, "logit_scale", None)
    return output if scale is None else output * scale  # type: ignore[no-any-return]


def hidden_size(model: PreTrainedModel) -> int:
    """Return H."""
    return int(model.config.get_text_config().hidden_size)


def switch_off_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Set every dropout of the model to 0, so that training and evaluation mode compute the same."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout_p"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model
