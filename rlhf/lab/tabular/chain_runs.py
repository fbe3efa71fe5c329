"""Policy gradient on the chain until it is solved: how many episodes that takes, many seeds at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.functional.advantages import reward_to_go
from rlhf.functional.losses import policy_gradient_loss
from rlhf.lab.tabular.episodes import Episodes, Sampler
from rlhf.oracle.chain import ADVANCE, NUM_ACTIONS, chain

SOLVED = 0.5
"""The chain is solved when J from its first state, the probability of reaching the reward, is at least this."""
LEARNING_RATE = 1.0
"""Of the gradient summed over the episodes of a batch: a success adds its score function once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long each run tries, and how many runs there are."""

    num_seeds: int
    batch: int
    """Episodes between two updates."""
    cap: int
    """Episodes after which a run that has not solved the chain is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solving:
    """When the runs of one chain ended."""

    episodes: Tensor
    """[K] float64 episodes of each seed, a multiple of the batch; runs that were given up have the cap."""
    solved: Tensor
    """[K] bool."""


def cloned_logits(length: int, num_demonstrations: int) -> Tensor:
    """Return [H, 3], the policy cloned from perfect demonstrations, uniform without any.

    pi(a | s) = (n(s, a) + 1) / (n(s) + 3): every demonstration advances in every state; one more of each action is
    added (Laplace's rule), as a network that is trained for a while does not rule out what it has not seen.
    """
    counts = torch.ones(length, NUM_ACTIONS, dtype=torch.float64)
    counts[:, ADVANCE] += num_demonstrations
    return counts.log()


def spaced_start(length: int, spacing: int) -> Tensor:
    """Return [H] equal probabilities of beginning at the first state and at every `spacing`-th after it."""
    start = torch.zeros(length, dtype=torch.float64)
    start[::spacing] = 1.0
    return start / start.sum()


def success(logits: Tensor) -> Tensor:
    """Return J [R] of policies [R, H, 3] from the first state: the product of the probabilities of advancing."""
    return logits.log_softmax(-1)[..., ADVANCE].sum(-1).exp()


def solve_chain(logits: Tensor, start: Tensor | None, budget: Budget, numbers: torch.Generator) -> Solving:
    """Train one policy per seed, all from the same logits [H, 3], until it solves the chain or reaches the cap.

    Args:
        logits: the initial policy of every run.
        start: [H] probabilities of where episodes begin; None for the first state. J always starts from the first.
        budget: seeds, batch and cap.
        numbers: draw the episodes.
    """
    sampler = Sampler.of(chain(len(logits), start), budget.num_seeds)
    spent = torch.zeros(budget.num_seeds, dtype=torch.float64)
    solved = torch.zeros(budget.num_seeds, dtype=torch.bool)
    running = torch.arange(budget.num_seeds)
    policies = logits.expand(budget.num_seeds, -1, -1).clone()
    while len(running):
        episodes = sampler.draw(policies, budget.batch, numbers)
        spent[running] += budget.batch
        if episodes.rewards.any():  # otherwise the gradient is 0 to the bit
            policies = ascended(policies, episodes)
            solved[running] = success(policies) >= SOLVED
        going = solved[running].logical_not() & (spent[running] < budget.cap)
        if not going.all():
            running, policies = running[going], policies[going]
    return Solving(episodes=spent, solved=solved)


def ascended(policies: Tensor, episodes: Episodes) -> Tensor:
    """Take one step of REINFORCE with the reward to go, each run on its own episodes."""
    weights = reward_to_go(episodes.rewards, episodes.mask, 1.0)
    leaf = policies.clone().requires_grad_()
    logprobs = episodes.logprobs(leaf)
    loss = policy_gradient_loss(logprobs, logprobs.detach(), weights, episodes.mask, num_tokens=1.0).loss
    (gradient,) = torch.autograd.grad(loss, leaf)
    return policies - LEARNING_RATE * gradient
