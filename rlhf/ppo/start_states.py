"""Where an episode begins: today, at a prompt of the data set."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from rlhf.batches import PromptBatch
from rlhf.data.batching import collate_prompts
from rlhf.data.records import Prompt


@dataclass(frozen=True, slots=True)
class StartStates:
    """The beginnings of a batch of episodes."""

    prompts: Sequence[Prompt]
    """Where each row comes from."""
    batch: PromptBatch
    """What the policy reads."""


def draw_start_states(prompts: Sequence[Prompt], pad_id: int, device: torch.device) -> StartStates:
    """Begin one episode at each prompt."""
    return StartStates(prompts, collate_prompts(list(prompts), pad_id).to(device))


class PromptOrder:
    """An endless reproducible order of prompts: a permutation an epoch. The batch follows from the step alone."""

    def __init__(self, num_prompts: int, batch_size: int, seed: int) -> None:
        self._num_prompts = num_prompts
        self._batch_size = batch_size
        self._seed = seed

    def batch(self, step: int) -> list[int]:
        """Return the prompts of PPO step `step`; a batch may run over the end of an epoch."""
        first = step * self._batch_size
        return [self._prompt(place) for place in range(first, first + self._batch_size)]

    def _prompt(self, place: int) -> int:
        epoch, offset = divmod(place, self._num_prompts)
        return _permutation(self._num_prompts, self._seed, epoch)[offset]


@lru_cache(maxsize=2)
def _permutation(num_prompts: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(num_prompts))
    random.Random(f"prompts-{seed}-{epoch}").shuffle(order)  # noqa: S311  # reproducible order, not a secret
    return tuple(order)
