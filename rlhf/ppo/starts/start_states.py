"""Where an episode begins: at a prompt of the data set, or inside a demonstration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlhf.batches import PromptBatch
from rlhf.data.batching import collate_prompts
from rlhf.data.records import Prompt
from rlhf.ppo.starts.resets import Resets, Start


@dataclass(frozen=True, slots=True)
class StartStates:
    """The start states of a batch of episodes."""

    prompts: Sequence[Prompt]
    """The prompt of each row."""
    prefixes: Sequence[tuple[int, ...]]
    """Forced tokens at the start of each response; empty where the episode begins at its prompt."""
    batch: PromptBatch
    """The prompts alone."""
    states: PromptBatch
    """What the policy reads before it acts: the prompts and their prefixes."""

    @property
    def num_forced(self) -> Tensor:
        """Return [B] int64, tokens of each prefix."""
        return torch.tensor([len(prefix) for prefix in self.prefixes], device=self.batch.prompt_ids.device)


def draw_start_states(
    prompts: Sequence[Prompt], pad_id: int, device: torch.device, resets: Resets | None = None, num_samples: int = 1
) -> StartStates:
    """Begin at each prompt, or where `resets` says; every `num_samples` consecutive episodes share a start."""
    drawn = [Start(prompt) for prompt in prompts] if resets is None else resets.draw(prompts)
    starts = [start for start in drawn for _ in range(num_samples)]
    taken, prefixes = [start.prompt for start in starts], [start.prefix for start in starts]
    batch = collate_prompts(taken, pad_id).to(device)
    states = [replace(prompt, ids=prompt.ids + prefix) for prompt, prefix in zip(taken, prefixes, strict=True)]
    return StartStates(taken, prefixes, batch, collate_prompts(states, pad_id).to(device))
