"""How long the phases of a PPO step take on a machine of accelerators."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf.functional.flops import ModelMatrices, causal_work, forward_flops
from rlhf.plan.hardware import Hardware
from rlhf.plan.memory import COMPUTE, GRADIENT, Held, Shape, cache_bytes

TRAINING = 0.40
"""Share of a device's rate that forward and backward passes reach: 38 % to 43 % when Llama 3 was pretrained on H100
(arXiv:2407.21783, table 4)."""
INFERENCE = 0.50
"""Of passes without gradients. Assumed: they have no second pass over memory."""
READING = 0.94
"""Share of the memory's bandwidth in decoding: 5.1 ms for the 16 GB of an 8B model on H100, with CUDA graphs."""
LAUNCHES = 1e-4
"""Seconds that a block's kernels take to start, without CUDA graphs: 8.4 ms instead of 5.1 for 32 blocks."""
UPDATE_BYTES = 30
"""Bytes that move for each trained weight in an optimizer step: read and write the master, two moments and the module's
weight, read the gradient, clear it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of one step by phase."""

    generation: float
    scoring: float
    """Rewards and reference."""
    training: float
    """Forward, backward and optimizer."""
    communication: float
    """Between devices. Nothing of it is taken to be hidden behind computation, so this is an upper bound."""

    @property
    def total(self) -> float:
        """Seconds of one step."""
        return self.generation + self.scoring + self.training + self.communication


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one device does in a PPO step."""

    episodes: int
    microbatches: int
    """Into which its episodes are cut."""
    epochs: int
    minibatches: int
    """Optimizer steps of an epoch."""


def times_of(
    flops: Mapping[str, float], held: Held, sampling: ModelMatrices, shape: Shape, step: Step, hardware: Hardware
) -> Times:
    """Return the times of a step.

    Args:
        flops: operations of a step by phase over all devices, as `ppo/run/cost.py` counts them.
        held: the models.
        sampling: matrices of the policy's language model.
        shape: what one device has in memory at once.
        step: what it does.
        hardware: the machine.
    """
    device, each = hardware.device, {phase: number / hardware.num for phase, number in flops.items()}
    again = each["forward"] if shape.checkpoints_activations else 0.0
    passes = (each["forward"] + each["backward"] + again) / (TRAINING * device.flops)
    trained = sum(model.trained for model in held.trained)
    updates = step.epochs * step.minibatches * trained * UPDATE_BYTES / device.bandwidth
    return Times(
        generation=_generation(held, sampling, shape, step.episodes, hardware),
        scoring=(each["reward"] + each["reference"]) / (INFERENCE * device.flops),
        training=passes + updates / (hardware.num if shape.is_sharded else 1),
        communication=_communication(held, shape, step, hardware),
    )


def _generation(held: Held, sampling: ModelMatrices, shape: Shape, episodes: int, hardware: Hardware) -> float:
    """Return the seconds of reading the prompts, and of a step a token: weights and cache are read, rows multiplied."""
    device, policy = hardware.device, held.trained[0]
    prompt = shape.row_tokens - shape.response_tokens
    read = forward_flops(sampling, causal_work([prompt] * episodes, episodes)) / (INFERENCE * device.flops)
    rows = episodes if shape.has_engine else min(shape.rows, episodes)
    attended = rows * (prompt + shape.response_tokens / 2)
    moved = (COMPUTE * policy.weights + attended * cache_bytes(policy)) / (READING * device.bandwidth)
    multiplied = forward_flops(sampling, causal_work([1] * rows, rows)) / (INFERENCE * device.flops)
    step = max(moved, multiplied) + (0.0 if shape.has_engine else LAUNCHES * policy.num_layers)
    return read + math.ceil(episodes / rows) * shape.response_tokens * step


def _communication(held: Held, shape: Shape, step: Step, hardware: Hardware) -> float:
    """Return the seconds of summing gradients, or of gathering weights and scattering gradients in every pass."""
    others = (hardware.num - 1) / hardware.num
    trained = sum(model.trained for model in held.trained)
    if not shape.is_sharded:
        return step.epochs * step.minibatches * 2 * others * GRADIENT * trained / hardware.link
    weights = COMPUTE * sum(model.weights for model in held.trained)
    frozen = COMPUTE * (sum(model.weights for model in held.frozen) + held.shared)
    once = weights + frozen  # old logprobs, reference, rewards
    learnt = step.epochs * (2 * weights + GRADIENT * trained)
    decoded = COMPUTE * held.trained[0].weights
    return others * (step.microbatches * (once + learnt) + decoded) / hardware.link
