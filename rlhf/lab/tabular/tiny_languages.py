"""Trains policies of tiny languages on sampled responses, many runs at once, and evaluates the results exactly.

Rewards, advantages and losses are those of `functional/`; J is enumerated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.functional.advantages import shaped_rewards
from rlhf.functional.groups import rloo
from rlhf.functional.kl import exact_kl, kl_estimate
from rlhf.functional.masking import keep
from rlhf.lab.tabular.episodes import Episodes, Sampler
from rlhf.oracle.exact import optimal_logits, regularised_objective
from rlhf.oracle.expectation import Objective
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import Process
from rlhf.training.randomness import generator

VOCABULARY, HORIZON = 5, 4
"""Of the languages: 85 prefixes, 341 responses."""
KL_COEF = 0.5
"""Reward units per nat; a standard deviation of the scores is 1. The reference is the uniform policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is trained."""

    learning_rates: tuple[float, ...]
    num_seeds: int
    """Each seed has its own language, the same for all cells."""
    num_batches: int
    num_episodes: int
    """Per batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """How the runs of all learning rates ended."""

    closed: Tensor
    """[L, K] of L learning rates and K seeds: (J - J_start) / (J_best - J_start), 1 at the optimum."""
    largest_kl: Tensor
    """[L, K] nats per response, the largest KL(old || new) of any batch's update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Languages:
    """One tiny language per seed; J is the expected score minus the KL penalty."""

    processes: list[Process]
    starts: list[float]
    """J of the uniform policy."""
    bests: list[float]
    """J of the optimal policy, proportional to reference * exp(score / KL_COEF)."""


def languages(num_seeds: int, seed: int) -> Languages:
    """Draw the languages."""
    drawn = [
        tiny_language(VOCABULARY, HORIZON, generator(seed, "lab", "language", k)).process for k in range(num_seeds)
    ]
    uniform = torch.zeros_like(drawn[0].rewards)
    return Languages(
        processes=drawn,
        starts=[objective_of(process, uniform) for process in drawn],
        bests=[objective_of(process, optimal_logits(process, uniform, KL_COEF)) for process in drawn],
    )


def objective_of(process: Process, logits: Tensor) -> float:
    """Return J of one policy, the expected score minus the KL penalty, by enumeration."""
    return float(regularised_objective(process, logits, torch.zeros_like(logits), KL_COEF))


def train(objective: Objective, epochs: int, size: Size, drawn: Languages, seed: int) -> Ends:
    """Train a policy from uniform for every learning rate and language, by plain gradient ascent.

    Args:
        objective: the policy loss.
        epochs: gradient steps on a batch, each on all of it.
        size: learning rates, seeds, batches.
        drawn: the languages.
        seed: draws the episodes, the same for every objective and number of epochs.
    """
    num_rates, num_seeds = len(size.learning_rates), len(drawn.processes)
    rates = torch.tensor(size.learning_rates, dtype=torch.float64).repeat_interleave(num_seeds).view(-1, 1, 1)
    rewards = torch.stack([process.rewards for process in drawn.processes]).repeat(num_rates, 1, 1)
    sampler = Sampler.of(drawn.processes[0], len(rewards), rewards)
    numbers = generator(seed, "lab", "stability")
    logits, largest = torch.zeros_like(rewards), torch.zeros(len(rewards), dtype=torch.float64)
    for _ in range(size.num_batches):
        episodes = sampler.draw(logits, size.num_episodes, numbers)
        updated = update(logits, episodes, objective, epochs, rates)
        largest = torch.maximum(largest, update_kl(logits, updated, episodes))
        logits = updated
    reached = [objective_of(drawn.processes[k % num_seeds], logits[k]) for k in range(len(logits))]
    starts, bests = (torch.tensor(ends, dtype=torch.float64) for ends in (drawn.starts, drawn.bests))
    closed = (torch.tensor(reached, dtype=torch.float64).view(num_rates, -1) - starts) / (bests - starts)
    return Ends(closed=closed, largest_kl=largest.view(num_rates, -1))


def update(logits: Tensor, episodes: Episodes, objective: Objective, epochs: int, rates: Tensor) -> Tensor:
    """Take `epochs` gradient steps on one batch and return the new logits [R, S, A].

    Rewards include the KL penalty; advantages are leave-one-out, as all responses of a run answer the same empty
    prompt. The loss is a mean over episodes, and runs share no parameter, so one backward pass serves all runs.

    Args:
        logits: [R, S, A] of the policies that sampled.
        episodes: B of each run.
        objective: the policy loss.
        epochs: gradient steps.
        rates: [R, 1, 1] learning rates.
    """
    num_episodes = len(episodes.runs) // len(logits)
    old_logprobs = episodes.logprobs(logits)
    kl = kl_estimate(old_logprobs, episodes.logprobs(torch.zeros_like(logits)), "k1")
    scores, mask = episodes.rewards.sum(1), episodes.mask
    rewards = shaped_rewards(scores, torch.zeros_like(kl), kl, mask, KL_COEF)
    advantages = rloo(rewards, mask, 1.0, num_episodes)
    for _ in range(epochs):
        policy = logits.clone().requires_grad_()
        logprobs = episodes.logprobs(policy)
        loss = objective(logprobs, old_logprobs, advantages, mask, num_tokens=float(num_episodes)).loss
        (gradient,) = torch.autograd.grad(loss, policy)
        logits = logits - rates * gradient
    return logits


def update_kl(logits: Tensor, updated: Tensor, episodes: Episodes) -> Tensor:
    """Return [R] nats per response, KL(old || new): exact at every state, averaged over the visits of the batch."""
    tables = exact_kl(logits, updated)
    kl = keep(tables[episodes.runs.unsqueeze(1), episodes.states], episodes.mask)
    return kl.sum(1).view(len(logits), -1).mean(1)
