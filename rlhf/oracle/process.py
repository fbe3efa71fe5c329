"""A finite decision process in which every episode ends, and one drawn at random."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """States ordered so that every transition moves forward: an episode visits a state at most once.

    S states, A actions. A policy is a table of logits [S, A]; the time step is part of the state.
    """

    start: Tensor
    """[S] float64, probability that an episode begins in a state. Another table means other starts: resets."""
    transitions: Tensor
    """[S, A, S] float64, probability of the next state; all 0 where the action ends the episode."""
    rewards: Tensor
    """[S, A] float64, the reward of an action."""

    def __post_init__(self) -> None:
        num_states, num_actions = self.rewards.shape
        expected = {"start": (num_states,), "transitions": (num_states, num_actions, num_states)}
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} must be {list(shape)}, found {list(getattr(self, name).shape)}")
        if any(tensor.dtype != torch.float64 for tensor in (self.start, self.transitions, self.rewards)):
            raise ValueError("start, transitions and rewards must be float64")
        if not torch.isclose(self.start.sum(), torch.ones((), dtype=torch.float64)):
            raise ValueError(f"start must add up to 1, found {float(self.start.sum())}")
        leaving = self.transitions.sum(-1)
        if not torch.isclose(leaving, (leaving > 0).double()).all():
            raise ValueError("transitions of a state and action must add up to 1, or be all 0 where the episode ends")
        if self.transitions.transpose(0, 1).tril().any():
            raise ValueError("transitions must lead to a state of higher number")

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.rewards)

    @property
    def num_actions(self) -> int:
        """A."""
        return self.rewards.shape[1]


def random_process(num_steps: int, states_a_step: int, num_actions: int, generator: torch.Generator) -> Process:
    """Draw a process of exactly `num_steps` steps with noise in its transitions and a reward at every step.

    The states of step h begin at `h * states_a_step`; rewards are normal, transitions softmax of normals.
    """
    num_states = num_steps * states_a_step
    transitions = torch.zeros(num_states, num_actions, num_states, dtype=torch.float64)
    for step in range(num_steps - 1):
        here = slice(step * states_a_step, (step + 1) * states_a_step)
        following = slice((step + 1) * states_a_step, (step + 2) * states_a_step)
        shape = (states_a_step, num_actions, states_a_step)
        transitions[here, :, following] = _normal(shape, generator).softmax(-1)
    start = torch.zeros(num_states, dtype=torch.float64)
    start[:states_a_step] = _normal((states_a_step,), generator).softmax(-1)
    return Process(start=start, transitions=transitions, rewards=_normal((num_states, num_actions), generator))


def random_logits(process: Process, generator: torch.Generator) -> Tensor:
    """Draw the logits [S, A] of a policy, standard normal."""
    return _normal((process.num_states, process.num_actions), generator)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator)
