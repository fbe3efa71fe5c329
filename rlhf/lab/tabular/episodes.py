"""Sampled episodes of many independent runs at once, as the padded batch that the formulas of `functional/` read."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from rlhf.functional.logprobs import token_logprobs
from rlhf.functional.masking import keep
from rlhf.oracle.process import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Episodes:
    """B episodes of each of R runs, N = R * B rows of at most T steps; masked positions hold 0."""

    runs: Tensor
    """[N] int64, the run whose policy acted; the rows of a run are consecutive."""
    states: Tensor
    """[N, T] int64."""
    actions: Tensor
    """[N, T] int64."""
    rewards: Tensor
    """[N, T] float64."""
    mask: Tensor
    """[N, T] bool, True on steps that were taken."""

    def logprobs(self, logits: Tensor) -> Tensor:
        """Return [N, T] nats of the actions under the policies [R, S, A], 0 where masked."""
        num_states, num_actions = logits.shape[1:]
        places = (self.runs.unsqueeze(1) * num_states + self.states).flatten()
        # index_select: its backward pass is far faster than that of logits[runs, states].
        rows = logits.reshape(-1, num_actions).index_select(0, places).view(*self.states.shape, num_actions)
        return keep(token_logprobs(rows, self.actions, 1.0), self.mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Draws episodes in a deterministic process; each run may have its own rewards."""

    start: Tensor
    """[S] probability that an episode begins in a state."""
    following: Tensor
    """[S, A] int64, the next state; -1 where the action ends the episode."""
    rewards: Tensor
    """[R, S, A] float64, of each run."""

    @classmethod
    def of(cls, process: Process, num_runs: int, rewards: Tensor | None = None) -> Self:
        """Return a sampler of a process.

        Args:
            process: each action leads to one state.
            num_runs: R.
            rewards: [R, S, A] instead of the process's.

        Raises:
            ValueError: a transition has noise.
        """
        leaving = process.transitions.sum(-1) > 0
        if not torch.equal(process.transitions.amax(-1), leaving.double()):
            raise ValueError("the lab samples processes without noise, found a transition to several states")
        following = torch.where(leaving, process.transitions.argmax(-1), -1)
        own = process.rewards.expand(num_runs, -1, -1) if rewards is None else rewards
        return cls(start=process.start, following=following, rewards=own)

    @torch.no_grad()
    def draw(self, logits: Tensor, num_episodes: int, numbers: torch.Generator) -> Episodes:
        """Let the policies [R, S, A] act, each in `num_episodes` episodes."""
        runs = torch.arange(len(logits)).repeat_interleave(num_episodes)
        thresholds = logits.softmax(-1).cumsum(-1)
        state = torch.multinomial(self.start, len(runs), replacement=True, generator=numbers)
        steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        going = torch.ones_like(runs, dtype=torch.bool)
        while going.any():
            draws = torch.rand(len(runs), 1, dtype=torch.float64, generator=numbers)
            # The last threshold may be rounded to below 1.
            action = (draws > thresholds[runs, state]).sum(-1).clamp(max=logits.shape[-1] - 1)
            reward = keep(self.rewards[runs, state, action], going)
            steps.append((state, action * going, reward, going))
            state = torch.where(going, self.following[state, action], -1)
            going = going & (state >= 0)
            state = state.clamp(min=0)
        states, actions, rewards, mask = (torch.stack(part, 1) for part in zip(*steps, strict=True))
        return Episodes(runs=runs, states=states, actions=actions, rewards=rewards, mask=mask)
