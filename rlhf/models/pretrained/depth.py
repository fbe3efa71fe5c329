"""How many blocks of a model are kept, and how many are trained."""

from transformers import PreTrainedModel

from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import blocks, final_norm

PER_BLOCK = ("layer_types", "mlp_layer_types", "no_rope_layers", "indexer_types")
"""Settings of a config that hold one entry for each block."""


def keep_first_blocks(model: PreTrainedModel, num_layers: int) -> None:
    """Drop, in place, all blocks after the first `num_layers`; the model's config then describes what is left.

    Raises:
        ConfigError: the model has fewer blocks.
    """
    stack = blocks(model)
    if num_layers > len(stack):
        raise ConfigError(f"model.num_layers: {num_layers}, but the model has {len(stack)} blocks - use at most that")
    del stack[num_layers:]
    config = model.config.get_text_config()
    config.num_hidden_layers = num_layers
    for name in PER_BLOCK:
        if isinstance(getattr(config, name, None), list):
            setattr(config, name, getattr(config, name)[:num_layers])


def freeze_all_but_top(model: PreTrainedModel, num_layers: int) -> None:
    """Train only the last `num_layers` blocks, the final norm and a scalar head; the backward pass stops below them.

    Raises:
        ConfigError: the model has fewer blocks.
    """
    stack = blocks(model)
    if num_layers > len(stack):
        raise ConfigError(
            f"model.trainable_layers: {num_layers}, but the model has {len(stack)} blocks - use at most that"
        )
    model.requires_grad_(False)
    for part in [*stack[len(stack) - num_layers :], final_norm(model), getattr(model, "score", None)]:
        if part is not None:
            part.requires_grad_(True)
