"""The first PPO step of a run on a few episodes, up to the losses: without an update."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.batches import Experience, Samples
from rlhf.ppo.experience import make_experience
from rlhf.ppo.rollout import Collected
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.run.prompt_source import PromptOrder
from rlhf.ppo.starts.resets import Resets
from rlhf.ppo.starts.start_states import StartStates, draw_start_states
from rlhf.ppo.tally import NAMES
from rlhf.ppo.trainer import PPO
from rlhf.training.randomness import generator

NUM_EPISODES = 32
"""Episodes of the trial, at most: enough to tell a share of 0 from one of 10 % (0.9^32 is 3 %)."""
NUM_TOKENS = 2048
"""Response tokens of the trial, roughly: the longer the responses, the fewer episodes."""
NUM_SAMPLED = 8
"""Episodes in which the sampler is compared with a forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the first step would compute."""

    collected: Collected
    experience: Experience
    ratio_deviation: float
    """Largest |ratio - 1| in the losses of the first epoch, before any update; nan if a ratio is."""
    value_loss: float
    """Sum over the microbatches."""
    saved_bytes: float
    """Bytes that the graph of the losses keeps for the backward pass, per padded token of a microbatch."""


def run_trial(parts: PPORun) -> Trial:
    """Collect a few episodes of the run's first batch, and compute the losses on them, without an update.

    With resets, some begin inside demonstrations as they do in the run.

    Raises:
        RlhfError: a reward failed, or the policy's logits are not finite.
    """
    trainer = parts.trainer
    starts = start_states(parts, num_episodes(trainer), trainer.resets)
    collected = trainer.collector.collect(starts, trainer.generators.rollout)
    experience = make_experience(collected.rollout, trainer.kl_control.coef, trainer.config, trainer.processes)
    tokens = float(experience.rollout.response_mask.sum())
    ratios: list[Tensor] = []
    value_loss, most_saved = 0.0, 0.0
    for rows in collected.microbatches.all():
        batch = experience.rows(rows)
        with saved_for_backward() as saved:
            first = int(rows[0])
            known, own = collected.frozen_states.get(first), collected.sequences[first]
            _, numbers, ratio = trainer.loss(batch, tokens, known, own)
        ratios.append(ratio)
        value_loss += float(numbers[NAMES.index("value_loss")])
        most_saved = max(most_saved, saved() / padded_tokens(batch))
    deviation = float((torch.cat(ratios) - 1).abs().max())
    return Trial(
        collected=collected,
        experience=experience,
        ratio_deviation=deviation,
        value_loss=value_loss,
        saved_bytes=most_saved,
    )


def num_episodes(trainer: PPO) -> int:
    """Return how many episodes the trial has: a multiple of what the minibatches and the groups of samples need."""
    config = trainer.config
    unit = math.lcm(config.minibatches, config.num_samples_per_prompt)
    wanted = max(min(NUM_EPISODES, NUM_TOKENS // config.sampling.max_new_tokens), unit)
    return min(wanted // unit * unit, config.rollout_batch_size)


def start_states(parts: PPORun, num_rows: int, resets: Resets | None = None) -> StartStates:
    """Return the first start states of the run's first batch, `num_samples_per_prompt` at each prompt or reset."""
    trainer, config = parts.trainer, parts.trainer.config
    num_samples = config.num_samples_per_prompt
    order = PromptOrder(len(parts.prompts), config.prompts_per_step, config.seed).batch(0)
    prompts = [parts.prompts[prompt] for prompt in order[: math.ceil(num_rows / num_samples)]]
    pad_id = int(trainer.collector.tokenizer.pad_token_id)
    return draw_start_states(prompts, pad_id, trainer.processes.device, resets, num_samples)


def sampled(parts: PPORun) -> tuple[StartStates, Samples]:
    """Return some start states and responses to them, with the sampler's logprob of each token."""
    trainer = parts.trainer
    starts = start_states(parts, min(NUM_SAMPLED, num_episodes(trainer)))
    return starts, trainer.collector.respond(starts, generator(trainer.config.seed, "doctor"))


@contextmanager
def saved_for_backward() -> Iterator[Callable[[], int]]:
    """Yield a function that returns how many bytes were saved for a backward pass so far, parameters excluded."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield lambda: sum(sizes.values())


def padded_tokens(batch: Experience) -> int:
    """Return the tokens of a microbatch with its padding."""
    rollout = batch.rollout
    lengths = rollout.prompt_mask.sum(1) + (rollout.response_mask | rollout.forced).sum(1)
    return len(lengths) * int(lengths.max())
