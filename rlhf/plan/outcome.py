"""A plan: for each way of running a configuration its memory, its time, and what stands in the way."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from rlhf.config import PPOConfig
from rlhf.forecast.models import PPOModels
from rlhf.forecast.ppo import cost_of, keeps_states
from rlhf.functional.flops import causal_work, sampling_work
from rlhf.plan.hardware import Hardware
from rlhf.plan.memory import Held, Memory, Shape, memory_of
from rlhf.plan.setups import Setup
from rlhf.plan.sizes import Sizes
from rlhf.plan.times import Step, Times, Work, communication_of, work_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of every episode."""

    prompt: int
    response: int

    @property
    def both(self) -> int:
        """Of prompt and response."""
        return self.prompt + self.response


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One way of running a configuration."""

    setup: Setup
    memory: Memory
    times: Times
    episodes: int
    """Of a step, over all devices."""
    available: float
    """Bytes of a device."""
    devices: int
    remedy: str
    """What makes it fit; empty where it fits."""

    @property
    def fits(self) -> bool:
        """Whether the larger phase fits a device."""
        return self.memory.peak <= self.available

    @property
    def device_hours(self) -> float:
        """For 1,000 episodes."""
        return self.devices * self.times.total / 3600 * 1000 / self.episodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a device holds and does in a step."""

    held: Held
    shape: Shape
    step: Step
    work: Work


def counted(config: PPOConfig, models: PPOModels, setup: Setup, lengths: Lengths, num_devices: int) -> Counted:
    """Count a step of one way of running: `planned` and `calibration.py` say how long that takes.

    Args:
        config: with the changes of the setup.
        models: of that configuration.
        setup: the way.
        lengths: of the episodes.
        num_devices: that share the step.
    """
    held, shape = _held(models), _shape(config, setup, lengths, num_devices)
    step, cost = _step(config, lengths, num_devices), cost_of(models, config.minibatches)
    rows = [lengths.prompt] * config.rollout_batch_size, [lengths.response] * config.rollout_batch_size
    flops = cost.flops(
        causal_work([lengths.both] * config.rollout_batch_size, sum(rows[1])),
        sampling_work(rows[0][:: config.num_samples_per_prompt], *rows),
        num_rows=config.rollout_batch_size,
        passes=config.epochs,
        keeps_states=keeps_states(models),
    )
    return Counted(held=held, shape=shape, step=step, work=work_of(flops, held, cost.sampling, shape, step))


def planned(config: PPOConfig, models: PPOModels, setup: Setup, lengths: Lengths, hardware: Hardware) -> Planned:
    """Return what one way of running takes: `counted` on a machine."""
    found, available = counted(config, models, setup, lengths, hardware.num), hardware.device.memory
    sync = communication_of(found.held, found.shape, found.step, hardware)
    return Planned(
        setup=setup,
        memory=memory_of(found.held, found.shape),
        times=found.work.times(hardware.device, sync),
        episodes=config.rollout_batch_size,
        available=available,
        devices=hardware.num,
        remedy=_remedy(found.held, found.shape, available, lengths.both),
    )


def _held(models: PPOModels) -> Held:
    lm = Sizes.of(models.lm)
    trained = (lm,) if models.critic is None else (lm, Sizes.of(models.critic))
    rewards, reference = tuple(Sizes.of(model) for model, _ in models.rewards), Sizes.of(models.reference)
    if models.has_own_reference:
        return Held(trained=trained, frozen=(*rewards, reference), shared=0)
    adapted = lm.weights > reference.weights  # with an adapter the reference is the policy with the adapter off
    return Held(trained=trained, frozen=rewards, shared=0 if adapted else lm.trained)


def _shape(config: PPOConfig, setup: Setup, lengths: Lengths, num_devices: int) -> Shape:
    episodes = math.ceil(config.rollout_batch_size / num_devices)
    return Shape(
        num_devices=num_devices,
        is_sharded=setup.is_sharded,
        has_engine=setup.has_engine,
        checkpoints_activations=False,
        rows=episodes if setup.has_engine else min(config.sampling.batch_rows, episodes),
        row_tokens=lengths.both,
        response_tokens=lengths.response,
        pass_tokens=max(lengths.both, min(config.microbatch_tokens, episodes * lengths.both)),
        narrow_moments=(config.optimizer.moments == "8bit", config.value_optimizer.moments == "8bit"),
    )


def _step(config: PPOConfig, lengths: Lengths, num_devices: int) -> Step:
    episodes = math.ceil(config.rollout_batch_size / num_devices)
    rows = max(1, config.microbatch_tokens // lengths.both)
    return Step(
        episodes=episodes,
        microbatches=math.ceil(episodes / rows),
        epochs=config.epochs,
        minibatches=config.minibatches,
    )


def _remedy(held: Held, shape: Shape, available: float, row: int) -> str:
    """Return the first thing that makes it fit, with what is too large without it; empty where it fits."""
    memory = memory_of(held, shape)
    if memory.peak <= available:
        return ""
    for words, change in _switches(row):
        if memory_of(held, change(shape)).peak <= available:
            return f"{_largest(memory)} do not fit: {words}"
    if any(model.quantized for model in held.trained):
        return f"{_largest(memory)} do not fit: quantized weights cannot be divided over devices"
    least = replace(shape, rows=1, pass_tokens=row, checkpoints_activations=True, is_sharded=True)
    for doubled in range(1, 11):
        num = shape.num_devices * 2**doubled
        if memory_of(held, replace(least, num_devices=num)).peak <= available:
            switches = "gradient_checkpointing and passes of one row"
            return f"{_largest(memory)} do not fit: FSDP2 on {num} devices, with {switches}"
    return f"{_largest(memory)} do not fit on any number of devices: each must hold the weights while it decodes"


def _switches(row: int) -> Iterator[tuple[str, Callable[[Shape], Shape]]]:
    """Yield what can be changed, from what costs least to what costs most, and then all of it together."""
    yield f"microbatch_tokens: {row}", lambda shape: replace(shape, pass_tokens=row)
    yield "sampling.batch_rows: 8", lambda shape: replace(shape, rows=min(8, shape.rows))
    yield "optimizer.moments: 8bit", lambda shape: replace(shape, narrow_moments=(True, True))
    yield "model.gradient_checkpointing: true", lambda shape: replace(shape, checkpoints_activations=True)
    yield (
        f"gradient_checkpointing, microbatch_tokens: {row} and batch_rows: 8",
        lambda shape: replace(shape, rows=min(8, shape.rows), pass_tokens=row, checkpoints_activations=True),
    )
    yield (
        f"gradient_checkpointing, microbatch_tokens: {row}, batch_rows: 8 and optimizer.moments: 8bit",
        lambda shape: replace(
            shape,
            rows=min(8, shape.rows),
            pass_tokens=row,
            checkpoints_activations=True,
            narrow_moments=(True, True),
        ),
    )


def _largest(memory: Memory) -> str:
    parts = {
        "the weights": memory.weights,
        "masters, gradients and moments": memory.optimizer,
        "keys and values": memory.cache,
        "activations": memory.activations,
    }
    return max(parts, key=lambda name: parts[name])
