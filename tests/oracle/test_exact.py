"""The triangular systems agree with sums over every trajectory."""

import pytest
import torch

from rlhf.oracle.chain import chain
from rlhf.oracle.exact import (
    gradient_of_weights,
    optimal_logits,
    policy_gradient,
    regularised_objective,
    sequence_kl,
    solve,
)
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits, random_process
from rlhf.oracle.trajectories import enumerate_trajectories

CLOSE = {"rtol": 0, "atol": 1e-12}


def cases():
    processes = {
        "chain": chain(4),
        "random": random_process(3, 3, 2, torch.Generator().manual_seed(0)),
        "language": tiny_language(4, 4, torch.Generator().manual_seed(1)).process,
    }
    seeds = torch.Generator().manual_seed(2)
    return {
        name: (process, random_logits(process, seeds), random_logits(process, seeds))
        for name, process in processes.items()
    }


CASES = cases()
EVERY_PROCESS = pytest.mark.parametrize("name", CASES)


@EVERY_PROCESS
@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_the_objective_and_its_gradient_are_sums_over_trajectories(name, gamma):
    process, logits, _ = CASES[name]
    listed = enumerate_trajectories(process)
    policy = logits.clone().requires_grad_()
    discounts = gamma ** torch.arange(listed.mask.shape[1], dtype=torch.float64)
    objective = listed.probabilities(policy) @ (listed.rewards * discounts).sum(1)
    objective.backward()
    torch.testing.assert_close(solve(process, logits, gamma).objective, objective.detach(), **CLOSE)
    torch.testing.assert_close(policy_gradient(process, logits, gamma), policy.grad, **CLOSE)


@EVERY_PROCESS
def test_values_are_mean_rewards_to_go_of_the_trajectories_that_pass(name):
    process, logits, _ = CASES[name]
    listed, solution = enumerate_trajectories(process), solve(process, logits)
    visits = torch.zeros(process.num_states, process.num_actions, dtype=torch.float64)
    sums = torch.zeros_like(visits)
    probabilities = listed.probabilities(logits)
    for row, kept in enumerate(listed.mask.sum(1).tolist()):
        for t in range(kept):
            place = int(listed.states[row, t]), int(listed.actions[row, t])
            visits[place] += probabilities[row]
            sums[place] += probabilities[row] * listed.rewards[row, t:kept].sum()
    torch.testing.assert_close(solution.occupancy, visits.sum(1), **CLOSE)
    seen = visits.sum(1) > 0
    torch.testing.assert_close(solution.action_values[seen], (sums / visits)[seen], **CLOSE)
    torch.testing.assert_close(solution.values[seen], (sums.sum(1) / visits.sum(1))[seen], **CLOSE)
    torch.testing.assert_close(solution.advantages, solution.action_values - solution.values[:, None], **CLOSE)
    torch.testing.assert_close(
        (logits.softmax(1) * solution.advantages).sum(1), torch.zeros_like(solution.values), **CLOSE
    )


@EVERY_PROCESS
def test_the_policy_gradient_theorem_holds(name):
    process, logits, _ = CASES[name]
    solution = solve(process, logits)
    for weights in (solution.action_values, solution.advantages):
        torch.testing.assert_close(
            gradient_of_weights(process, logits, weights), policy_gradient(process, logits), **CLOSE
        )


@EVERY_PROCESS
def test_the_sequence_kl_is_a_sum_over_trajectories(name):
    process, logits, ref_logits = CASES[name]
    listed = enumerate_trajectories(process)
    log_ratio = (listed.logprobs(logits) - listed.logprobs(ref_logits)).sum(1)
    torch.testing.assert_close(
        sequence_kl(process, logits, ref_logits), listed.probabilities(logits) @ log_ratio, **CLOSE
    )
    assert float(sequence_kl(process, logits, ref_logits)) > 0.1
    assert abs(float(sequence_kl(process, logits, logits))) < 1e-15


@EVERY_PROCESS
def test_nothing_is_better_than_the_optimal_policy_and_its_gradient_is_0(name):
    process, logits, ref_logits = CASES[name]
    best = optimal_logits(process, ref_logits, 0.5).requires_grad_()
    objective = regularised_objective(process, best, ref_logits, 0.5)
    (gradient,) = torch.autograd.grad(objective, best)
    assert float(gradient.abs().max()) < 1e-12
    nudge = 0.1 * random_logits(process, torch.Generator().manual_seed(3))
    for other in (logits, ref_logits, best.detach() + nudge):
        assert float(regularised_objective(process, other, ref_logits, 0.5)) < float(objective.detach()) - 1e-4


def test_without_noise_the_optimal_trajectories_are_the_reference_tilted_by_the_score():
    for name in ("chain", "language"):
        process, _, ref_logits = CASES[name]
        listed = enumerate_trajectories(process)
        tilted = listed.probabilities(ref_logits) * (listed.rewards.sum(1) / 0.5).exp()
        optimum = optimal_logits(process, ref_logits, 0.5)
        torch.testing.assert_close(listed.probabilities(optimum), tilted / tilted.sum(), **CLOSE)
        value = regularised_objective(process, optimum, ref_logits, 0.5)
        torch.testing.assert_close(value, 0.5 * tilted.sum().log(), **CLOSE)
