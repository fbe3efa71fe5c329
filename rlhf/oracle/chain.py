"""The chain: three actions, one of which advances, and a reward only at the end."""

import torch

from rlhf.oracle.process import Process

ADVANCE = 0
"""The action that moves on; the others end the episode without a reward."""
NUM_ACTIONS = 3


def chain(length: int, start: torch.Tensor | None = None) -> Process:
    """Build a chain in which `length` right actions in a row bring a reward of 1.

    A uniform policy that begins at the first state finds the reward with probability 3^-length: random exploration
    takes exponentially many episodes. Kakade and Langford 2002 and Agarwal et al. 2021, arXiv:1908.00261, section 4.1
    study such chains.

    Args:
        length: H, states before the end.
        start: [H] float64 probability of beginning at each state; None begins at the first.
    """
    transitions = torch.zeros(length, NUM_ACTIONS, length, dtype=torch.float64)
    places = torch.arange(length - 1)
    transitions[places, ADVANCE, places + 1] = 1.0
    rewards = torch.zeros(length, NUM_ACTIONS, dtype=torch.float64)
    rewards[-1, ADVANCE] = 1.0
    if start is None:
        start = torch.zeros(length, dtype=torch.float64)
        start[0] = 1.0
    return Process(start=start, transitions=transitions, rewards=rewards)
