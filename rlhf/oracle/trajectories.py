"""Every trajectory of a process, as the padded batch that the formulas of `functional/` read."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlhf.functional.logprobs import token_logprobs
from rlhf.functional.masking import keep
from rlhf.oracle.process import Process

_Path = tuple[list[int], list[int], float]
"""States, actions, and the probability of the dynamics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectories:
    """N trajectories of at most T steps; masked positions hold 0."""

    states: Tensor
    """[N, T] int64."""
    actions: Tensor
    """[N, T] int64."""
    rewards: Tensor
    """[N, T] float64."""
    mask: Tensor
    """[N, T] bool, True on steps that were taken."""
    dynamics: Tensor
    """[N] float64, probability of start and transitions; multiplied by the policy's, that of the trajectory."""

    def logprobs(self, logits: Tensor) -> Tensor:
        """Return [N, T] nats of the actions under a policy [S, A], 0 where masked."""
        return keep(token_logprobs(logits[self.states], self.actions, 1.0), self.mask)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return [N] probabilities of the trajectories under a policy [S, A]; they add up to 1."""
        return self.dynamics * self.logprobs(logits).sum(1).exp()


def enumerate_trajectories(process: Process) -> Trajectories:
    """List every trajectory that has a probability above 0 under a policy that never gives an action probability 0."""
    found: list[_Path] = []
    open_ends: list[_Path] = [
        ([state], [], float(process.start[state])) for state in process.start.nonzero().flatten().tolist()
    ]
    while open_ends:
        visited, done, probability = open_ends.pop()
        for action in range(process.num_actions):
            taken = [*done, action]
            following = process.transitions[visited[-1], action]
            nexts = following.nonzero().flatten().tolist()
            if not nexts:
                found.append((visited, taken, probability))
            open_ends += [([*visited, state], taken, probability * float(following[state])) for state in nexts]
    states = pad_sequence([torch.tensor(row[0]) for row in found], batch_first=True)
    actions = pad_sequence([torch.tensor(row[1]) for row in found], batch_first=True)
    lengths = torch.tensor([len(row[0]) for row in found])
    mask = torch.arange(states.shape[1]) < lengths[:, None]
    return Trajectories(
        states=states,
        actions=actions,
        rewards=keep(process.rewards[states, actions], mask),
        mask=mask,
        dynamics=torch.tensor([row[2] for row in found], dtype=torch.float64),
    )
