"""How long the phases of a PPO step take on a machine of accelerators."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlhf.functional.flops import ModelMatrices, causal_work, forward_flops
from rlhf.plan.hardware import Device, Hardware
from rlhf.plan.memory import COMPUTE, GRADIENT, Held, Shape, cache_bytes

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one device does in a step, counted: operations, bytes that move, and blocks that start."""

    passes: float
    """Operations of forward and backward passes."""
    pass_blocks: float
    """Blocks that these passes go through."""
    update_bytes: float
    """Moved by optimizer steps."""
    scoring: float
    """Operations of rewards and reference."""
    scoring_blocks: float
    """Blocks that these pass through."""
    reading: float
    """Operations of reading the prompts."""
    decode_steps: float
    """Of all groups of rows that are decoded together."""
    decode_bytes: float
    """Read in a decode step: weights and cache."""
    decode_flops: float
    """Operations of a decode step."""
    decode_blocks: float
    """Blocks that a decode step starts; 0 with an engine, whose graphs start all at once."""

    def times(self, device: Device, communication: float = 0.0) -> Times:
        """Return the seconds that this takes on a device."""
        share = device.efficiency
        read = self.reading / (share.inference * device.flops)
        moved, multiplied = (
            self.decode_bytes / (share.reading * device.bandwidth),
            self.decode_flops / (share.decoding * device.flops),
        )
        decode = self.decode_steps * (max(moved, multiplied) + share.launch * self.decode_blocks)
        passes = self.passes / (share.training * device.flops) + share.pass_launch * self.pass_blocks
        scored = self.scoring / (share.inference * device.flops) + share.pass_launch * self.scoring_blocks
        updates = self.update_bytes / (share.updating * device.bandwidth)
        return Times(generation=read + decode, scoring=scored, training=passes + updates, communication=communication)


def work_of(flops: Mapping[str, float], held: Held, sampling: ModelMatrices, shape: Shape, step: Step) -> Work:
    """Count what one device does in a step.

    Args:
        flops: operations of a step by phase over all devices, as `ppo/run/cost.py` counts them.
        held: the models.
        sampling: matrices of the policy's language model.
        shape: what one device has in memory at once.
        step: what it does.
    """
    each = {phase: number / shape.num_devices for phase, number in flops.items()}
    again = each["forward"] if shape.checkpoints_activations else 0.0
    trained, layers = sum(model.trained for model in held.trained), sum(model.num_layers for model in held.trained)
    updates = step.epochs * step.minibatches * trained * UPDATE_BYTES
    policy, prompt = held.trained[0], shape.row_tokens - shape.response_tokens
    rows = step.episodes if shape.has_engine else min(shape.rows, step.episodes)
    attended = rows * (prompt + shape.response_tokens / 2)
    scorers = policy.num_layers + sum(model.num_layers for model in held.frozen)
    return Work(
        passes=each["forward"] + each["backward"] + again,
        pass_blocks=layers * step.microbatches * (1 + 2 * step.epochs),
        update_bytes=updates / (shape.num_devices if shape.is_sharded else 1),
        scoring=each["reward"] + each["reference"],
        scoring_blocks=scorers * step.microbatches,
        reading=forward_flops(sampling, causal_work([prompt] * step.episodes, step.episodes)),
        decode_steps=math.ceil(step.episodes / rows) * shape.response_tokens,
        decode_bytes=COMPUTE * policy.weights + attended * cache_bytes(policy),
        decode_flops=forward_flops(sampling, causal_work([1] * rows, rows)),
        decode_blocks=0 if shape.has_engine else policy.num_layers,
    )


def communication_of(held: Held, shape: Shape, step: Step, hardware: Hardware) -> float:
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
