"""The least arithmetic and memory traffic that a piece of work needs, from the shape of a Llama-like model.

Attention scores, norms and losses are left out: on rows this short they are a few percent. A multiplication and an
addition count as two operations; the backward pass costs twice the forward pass (Kaplan et al. 2020, arXiv:2001.08361,
section 2.1).
"""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the machine reached when it did nothing else."""

    flops: float
    """Operations per second of the best matrix product."""
    bytes: float
    """Bytes read from memory per second."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """How many weights each token is multiplied by."""

    trunk: int
    """Weights of all blocks."""
    head: int
    """Weights of the vocabulary head, used only where a token is predicted."""


def shape_of(directory: str) -> ModelShape:
    """Read the shape from config.json.

    Raises:
        ValueError: it does not describe a Llama-like model.
    """
    config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        head_dim = config.get("head_dim") or hidden // heads
        keys = config.get("num_key_value_heads", heads) * head_dim
        attention = 2 * hidden * heads * head_dim + 2 * hidden * keys
        block = attention + 3 * hidden * config["intermediate_size"]
        return ModelShape(trunk=config["num_hidden_layers"] * block, head=hidden * config["vocab_size"])
    except KeyError as missing:
        raise ValueError(f"{directory}: config.json has no {missing}, so the limit is unknown") from None


def forward_flops(shape: ModelShape, tokens: int, predicted: int) -> float:
    """Operations of a forward pass over `tokens`, `predicted` of which pass through the vocabulary head."""
    return 2.0 * (shape.trunk * tokens + shape.head * predicted)


def update_seconds(
    shape: ModelShape,
    limits: Limits,
    *,
    rows: int,
    prompt_tokens: int,
    new_tokens: int,
    epochs: int,
    separate_critic: bool,
) -> float:
    """Return the least seconds of a PPO update: sampling, reference, reward, and `epochs` forward and backward passes.

    Sampling counts each token once, as if all rows went through the best matrix product.
    """
    tokens, predicted = rows * (prompt_tokens + new_tokens), rows * new_tokens
    sampled = reference = forward_flops(shape, tokens, predicted)
    scored = forward_flops(shape, tokens, 0)
    critic = 3.0 * forward_flops(shape, tokens, 0) if separate_critic else 0.0
    trained = epochs * (3.0 * forward_flops(shape, tokens, predicted) + critic)
    return (sampled + reference + scored + trained) / limits.flops


def training_seconds(shape: ModelShape, limits: Limits, tokens: int) -> float:
    """Return the least seconds of a forward and backward pass over `tokens`, all of them predicted."""
    return 3.0 * forward_flops(shape, tokens, tokens) / limits.flops


def sampling_seconds(
    shape: ModelShape, limits: Limits, *, rows: int, prompt_tokens: int, new_tokens: int, bytes_per_weight: int
) -> float:
    """Return the least seconds to sample: each step reads every weight once, or is bound by its products."""
    prefill = forward_flops(shape, rows * prompt_tokens, rows) / limits.flops
    step = max(
        forward_flops(shape, rows, rows) / limits.flops,
        (shape.trunk + shape.head) * bytes_per_weight / limits.bytes,
    )
    return prefill + (new_tokens - 1) * step
