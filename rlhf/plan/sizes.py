"""What a plan counts of a model: its weights by how they are kept, and the widths that activations have."""

from dataclasses import dataclass
from typing import Self

from torch import nn
from transformers import PreTrainedModel

from rlhf.models.passes.anatomy import blocks, trunk
from rlhf.models.passes.frozen import num_frozen_blocks
from rlhf.models.passes.matrices import key_width
from rlhf.models.passes.quantized import quantized_layers
from rlhf.training.moments import in_8_bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of one model."""

    weights: int
    trained: int
    """Of `weights`, those that get a gradient."""
    block: int
    """Weights of the largest block."""
    num_layers: int
    num_crossed: int
    """Blocks that the backward pass goes through: from the lowest trained one on."""
    hidden: int
    """Width of the residual stream."""
    inner: int
    """Width of the feed-forward layer."""
    keys: int
    """Width of the keys of a token in one block; its values have the same."""
    vocabulary: int
    quantized: int = 0
    """Of `weights`, those that are held in fewer bits."""
    narrow: int = 0
    """Of `trained`, those whose moments may be kept in 8 bits."""
    quantized_bytes: int = 0
    """That hold them."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """Read them off a model, which may be on the meta device."""
        config, stack = model.config.get_text_config(), list(blocks(model))
        quantized = [layer for _, layer in quantized_layers(model)]
        trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
        crossed = len(stack) - num_frozen_blocks(model) if _is_trained(trunk(model)) else 0
        return cls(
            weights=_num_weights(model),
            trained=sum(each.numel() for each in trained.values()),
            block=max(map(_num_weights, stack)),
            num_layers=len(stack),
            num_crossed=crossed,
            hidden=config.hidden_size,
            inner=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            keys=key_width(model),
            vocabulary=config.vocab_size,
            quantized=sum(layer.num_weights for layer in quantized),
            narrow=sum(trained[name].numel() for name in in_8_bits(model, trained)),
            quantized_bytes=sum(layer.num_bytes for layer in quantized),
        )


def _num_weights(part: nn.Module) -> int:
    quantized = sum(layer.num_weights for _, layer in quantized_layers(part))
    return quantized + sum(p.numel() for p in part.parameters())


def _is_trained(part: nn.Module) -> bool:
    return any(p.requires_grad for p in part.parameters())
