"""Draws which episodes begin inside a demonstration, in which one, and after how many of its tokens.

Source: Chang et al. 2024, arXiv:2404.08495 (DR-PO). An episode takes its demonstration's prompt. Left out: looking up a
demonstration for the prompt that the episode would have had.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlhf.data.records import Demonstration, Prompt
from rlhf.ppo.starts.cut_laws import CutLaw
from rlhf.ppo.starts.demonstrations import Ends
from rlhf.ppo.starts.own_best import FORM, OwnBest
from rlhf.training.processes import Processes
from rlhf.training.storage.schema import Form


@dataclass(frozen=True, slots=True)
class Start:
    """Where one episode begins."""

    prompt: Prompt
    prefix: tuple[int, ...] = ()
    """Forced tokens after the prompt."""


class Resets:
    """Draws where episodes begin; counts steps, for laws that change, and remembers the policy's best responses."""

    def __init__(
        self,
        demonstrations: Sequence[Demonstration] | OwnBest,
        law: CutLaw,
        ends: Ends,
        generator: torch.Generator,
        *,
        fraction: float,
        max_new_tokens: int,
        num_steps: int,
    ) -> None:
        """Set up the distribution of starts.

        Args:
            demonstrations: without what ended them, none empty; or the policy's own best.
            law: says which prefixes are possible.
            ends: what to cut off the policy's own best.
            generator: of this process.
            fraction: probability that an episode begins inside a demonstration.
            max_new_tokens: of a whole response; at least one token is left to the policy.
            num_steps: PPO steps of the run.
        """
        self.demonstrations = demonstrations
        self.generator = generator
        self._law = law
        self._ends = ends
        self._fraction = fraction
        self._longest = max_new_tokens - 1
        self.num_steps = num_steps
        self._num_done = 0

    def draw(self, prompts: Sequence[Prompt]) -> list[Start]:
        """Return a start for each prompt: the prompt itself, or, with probability `fraction`, inside a demonstration.

        While there are no demonstrations (`own_best` before the first step), episodes begin at their prompts.
        """
        pool = self.pool()
        return [self._inside(pool) if self._falls_on_reset() and pool else Start(prompt) for prompt in prompts]

    def pool(self) -> Sequence[Demonstration]:
        """Return the current demonstrations; each is equally likely."""
        return self.demonstrations.demonstrations if isinstance(self.demonstrations, OwnBest) else self.demonstrations

    def lengths(self, demonstration: Demonstration) -> Sequence[int]:
        """Return the possible prefix lengths of a demonstration at this step; each is equally likely."""
        ids = demonstration.response_ids
        return self._law(ids, min(len(ids), self._longest), self._num_done / self.num_steps)

    def finish_step(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[tuple[int, ...]],
        scores: Sequence[float],
        processes: Processes,
    ) -> None:
        """Count a PPO step, and remember its best responses.

        Args:
            prompts: of this process's episodes.
            responses: whole.
            scores: the weighted sums of the rewards.
            processes: the episodes of all of them count.
        """
        self._num_done += 1
        if isinstance(self.demonstrations, OwnBest):
            open_parts = [self._ends.open_part(response) for response in responses]
            self.demonstrations.remember(prompts, open_parts, scores, processes)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds; the generator is saved with the others."""
        own_best = self.demonstrations.state() if isinstance(self.demonstrations, OwnBest) else []
        return {"num_done": self._num_done, "own_best": own_best}

    def form(self) -> Form:
        """Return the form of `state`."""
        return {"num_done": int, "own_best": FORM}

    def load(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        self._num_done = state["num_done"]
        if isinstance(self.demonstrations, OwnBest):
            self.demonstrations.load(state["own_best"])

    def _falls_on_reset(self) -> bool:
        return float(torch.rand((), dtype=torch.float64, generator=self.generator)) < self._fraction

    def _inside(self, pool: Sequence[Demonstration]) -> Start:
        demonstration = pool[self._below(len(pool))]
        lengths = self.lengths(demonstration)
        return Start(demonstration.prompt, demonstration.response_ids[: lengths[self._below(len(lengths))]])

    def _below(self, number: int) -> int:
        return int(torch.randint(number, (), generator=self.generator))
