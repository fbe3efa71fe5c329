"""How much memory of a device each phase of a PPO step takes."""

from dataclasses import dataclass

from rlhf.models.passes.head import LOGIT_CHUNK
from rlhf.plan.sizes import Sizes
from rlhf.training.moments import BLOCK

COMPUTE = 2
"""Bytes of a number in bfloat16, the compute type on a GPU."""
MASTER, GRADIENT, MOMENTS = 4, 4, 8
"""Bytes a trained weight: the float32 master, its gradient, and Adam's two moments. The module has COMPUTE more."""
NARROW_MOMENTS = 2 * (1 + 4 / BLOCK)
"""The same for moments in 8 bits: two codes, and two float32 numbers a block."""
RESERVED = 1.5e9
"""Bytes of a device that the driver, its libraries and the kernels take."""
UNUSED = 1.08
"""The allocator keeps more than it hands out: torch's caching allocator, some percent in long runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is in memory at once, of one device."""

    num_devices: int
    is_sharded: bool
    has_engine: bool
    checkpoints_activations: bool
    rows: int
    """Responses that are decoded together."""
    row_tokens: int
    """Tokens of a prompt with its response."""
    response_tokens: int
    pass_tokens: int
    """Tokens of one forward and backward pass."""
    narrow_moments: tuple[bool, bool] = (False, False)
    """Whether the policy's and the separate critic's moments are kept in 8 bits; never in shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Models whose weights are in memory for the whole step."""

    trained: tuple[Sizes, ...]
    """The policy, and the separate critic."""
    frozen: tuple[Sizes, ...]
    """Reward models, and the reference where it shares nothing with the policy."""
    shared: int
    """Weights of the reference that the policy does not hold for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one device by phase, and by what they hold."""

    weights: float
    """Of all models, with what a sharded pass gathers."""
    optimizer: float
    """Masters, gradients and moments."""
    cache: float
    """Keys and values while decoding, and the engine's weights."""
    activations: float
    """Kept for the backward pass, logits included."""

    @property
    def rollout(self) -> float:
        """While responses are sampled and scored."""
        return RESERVED + UNUSED * (self.weights + self.optimizer + self.cache)

    @property
    def update(self) -> float:
        """While gradients are computed."""
        return RESERVED + UNUSED * (self.weights + self.optimizer + self.activations)

    @property
    def peak(self) -> float:
        """The larger of the two."""
        return max(self.rollout, self.update)


def memory_of(held: Held, shape: Shape) -> Memory:
    """Return the memory of one device. All is kept in bfloat16 but quantized layers and what the optimizer needs."""
    share = shape.num_devices if shape.is_sharded else 1
    every = [*held.trained, *held.frozen]
    weights = sum(weight_bytes(each) for each in every) + COMPUTE * held.shared
    narrow = (False, False) if shape.is_sharded else shape.narrow_moments
    saved = [
        (MOMENTS - NARROW_MOMENTS) * each.narrow for each, is_on in zip(held.trained, narrow, strict=False) if is_on
    ]
    optimizer = sum((MASTER + GRADIENT + MOMENTS) * each.trained for each in held.trained) - sum(saved)
    policy = held.trained[0]
    gathered = 2.0 * COMPUTE * max(each.block for each in every) if shape.is_sharded else 0.0
    whole = COMPUTE * policy.weights if shape.is_sharded or shape.has_engine else 0.0
    return Memory(
        weights=weights / share + gathered,
        optimizer=optimizer / share,
        cache=whole + shape.rows * shape.row_tokens * cache_bytes(policy),
        activations=sum(activation_bytes(each, shape) for each in held.trained) + _logits(policy, shape),
    )


def weight_bytes(model: Sizes) -> float:
    """Return the bytes of a model's weights."""
    return COMPUTE * (model.weights - model.quantized) + model.quantized_bytes


def cache_bytes(model: Sizes) -> float:
    """Return the bytes of the keys and values of one token, in all blocks."""
    return 2.0 * COMPUTE * model.keys * model.num_layers


def activation_bytes(model: Sizes, shape: Shape) -> float:
    """Return what is kept of a pass for its backward pass.

    27 H + 8 F bytes a token and block, with H the width of the residual stream and F that of the feed-forward layer:
    what torch saves of a Llama block in bfloat16. (113 kB at H = 1,536, F = 8,960 were counted, and 226 kB at
    H = 4,096, F = 14,336.) With checkpointing only each block's input is kept, and one block's activations at a time.
    """
    block = shape.pass_tokens * (27.0 * model.hidden + 8.0 * model.inner)
    if not shape.checkpoints_activations:
        return model.num_crossed * block
    return model.num_crossed * shape.pass_tokens * COMPUTE * model.hidden + min(model.num_crossed, 1) * block


def _logits(policy: Sizes, shape: Shape) -> float:
    """Return the logits at response positions: all in the compute type, and a chunk of them in float32."""
    positions = shape.pass_tokens * shape.response_tokens / shape.row_tokens
    return policy.vocabulary * (COMPUTE * positions + 2 * 4 * min(positions, LOGIT_CHUNK))
