"""The sizes of a model's weight matrices, grouped by what a forward and a backward pass do with them."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.functional.flops import Matrices, ModelMatrices
from rlhf.models.passes.anatomy import blocks, trunk
from rlhf.models.passes.frozen import num_frozen_blocks
from rlhf.models.passes.quantized import quantized_layers


def model_matrices(model: PreTrainedModel, heads: Sequence[nn.Module]) -> ModelMatrices:
    """Return the matrices of a model, grouped by its `requires_grad` flags.

    Simplified: every token counts as going through all experts, and sliding windows are ignored.

    Args:
        model: its blocks count.
        heads: linear maps of the last hidden states that the caller applies where something is predicted.

    Raises:
        ConfigError: no stack of blocks was found.
    """
    stack = list(blocks(model))
    crossed = stack[num_frozen_blocks(model) :] if any(p.requires_grad for p in trunk(model).parameters()) else []
    scores = _query_width(model) * len(crossed)
    trains_trunk = bool(crossed)
    return ModelMatrices(
        used=Matrices(trunk=_sizes(stack), scores=_query_width(model) * len(stack), head=_sizes(heads)),
        crossed=Matrices(trunk=_sizes(crossed), scores=scores, head=_sizes(heads) if trains_trunk else 0),
        trained=Matrices(trunk=_sizes(crossed, _is_trained), scores=scores, head=_sizes(heads, _is_trained)),
    )


def frozen_matrices(model: PreTrainedModel, heads: Sequence[nn.Module]) -> ModelMatrices:
    """Return the matrices of a model that only runs forward, with its trained adapters switched off."""
    stack, nothing = blocks(model), Matrices(trunk=0, scores=0, head=0)
    used = Matrices(
        trunk=_sizes(stack, _is_frozen), scores=_query_width(model) * len(stack), head=_sizes(heads, _is_frozen)
    )
    return ModelMatrices(used=used, crossed=nothing, trained=nothing)


def largest_matrix(model: PreTrainedModel) -> tuple[int, int]:
    """Return the shape of the largest matrix of a block."""
    first = blocks(model)[0]
    shapes = [(int(p.shape[0]), int(p.shape[1])) for p in first.parameters() if p.ndim == 2]
    shapes += [(layer.out_features, layer.in_features) for _, layer in quantized_layers(first)]
    return max(shapes, key=lambda shape: shape[0] * shape[1])


def key_width(model: PreTrainedModel) -> int:
    """Return the width of a token's keys in one block, heads x head size; its values have the same."""
    config = model.config.get_text_config()
    return int((getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * _head_size(model))


def _query_width(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().num_attention_heads * _head_size(model))


def _head_size(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _sizes(parts: Sequence[nn.Module] | nn.ModuleList, counts: Callable[[Tensor], bool] = lambda _: True) -> int:
    plain = sum(p.numel() for part in parts for p in part.parameters() if p.ndim >= 2 and counts(p))
    quantized = [layer for part in parts for _, layer in quantized_layers(part) if counts(layer.weight)]
    return plain + sum(layer.num_weights for layer in quantized)


def _is_trained(parameter: Tensor) -> bool:
    return parameter.requires_grad


def _is_frozen(parameter: Tensor) -> bool:
    return not parameter.requires_grad
