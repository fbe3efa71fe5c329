"""Tests of rlhf.lab.tabular.chain_runs."""

import pytest
import torch

from rlhf.lab.tabular.chain_runs import Budget, ascended, cloned_logits, solve_chain, spaced_start, success
from rlhf.lab.tabular.episodes import Episodes, Sampler
from rlhf.oracle.chain import chain
from rlhf.oracle.exact import policy_gradient, solve
from rlhf.oracle.process import random_logits


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def test_success_is_the_oracles_objective():
    policies = torch.stack([random_logits(chain(5), numbers(seed)) for seed in range(3)])
    exact = [float(solve(chain(5), policy).objective) for policy in policies]
    assert success(policies).tolist() == pytest.approx(exact, rel=1e-12)


def test_a_clone_follows_laplaces_rule():
    # 4 demonstrations: 5 of 7 advance, 1 of 7 each of the others.
    assert cloned_logits(3, 4).softmax(-1)[2].tolist() == pytest.approx([5 / 7, 1 / 7, 1 / 7])
    assert float(success(cloned_logits(3, 0))) == pytest.approx(1 / 27)


def test_starts_are_uniform_over_the_places_of_a_cut():
    assert spaced_start(5, 1).tolist() == [0.2] * 5
    assert spaced_start(6, 4).tolist() == [0.5, 0.0, 0.0, 0.0, 0.5, 0.0]


def test_a_step_adds_the_score_of_each_success_and_nothing_else():
    # One success from state 1 of 2 and one failure: only the advance in state 1 is learned, by 1 - 1/3.
    episodes = Episodes(
        runs=torch.zeros(2, dtype=torch.int64),
        states=torch.tensor([[1], [0]]),
        actions=torch.tensor([[0], [2]]),
        rewards=torch.tensor([[1.0], [0.0]], dtype=torch.float64),
        mask=torch.ones(2, 1, dtype=torch.bool),
    )
    stepped = ascended(torch.zeros(1, 2, 3, dtype=torch.float64), episodes)
    assert stepped[0, 0].tolist() == [0.0] * 3
    assert stepped[0, 1].tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])


def test_the_expected_step_is_the_gradient_from_those_starts():
    num, start = 40_000, spaced_start(3, 1)
    process = chain(3, start)
    policy = torch.zeros(1, 3, 3, dtype=torch.float64)
    episodes = Sampler.of(process, 1).draw(policy, num, numbers())
    mean_step = (ascended(policy, episodes) - policy)[0] / num
    # An episode's step is at most 1 in each component: 5 standard errors.
    assert torch.allclose(mean_step, policy_gradient(process, policy[0]), rtol=0, atol=5 / num**0.5)
    assert float(mean_step.abs().max()) > 2 * 5 / num**0.5


def test_the_wait_for_a_success_is_geometric():
    # With a batch of 1 the first success of a chain of 1 comes after 3 episodes on average, with a standard deviation
    # of sqrt(2 / 3) * 3 = 2.45; one success gives pi = e / (e + 2 exp(-1/2)) = 0.58, which solves it.
    budget = Budget(num_seeds=4000, batch=1, cap=1000)
    found = solve_chain(cloned_logits(1, 0), None, budget, numbers())
    assert found.solved.all()
    assert float(found.episodes.mean()) == pytest.approx(3.0, abs=5 * 2.45 / 4000**0.5)


def test_runs_that_reach_the_cap_are_given_up():
    found = solve_chain(cloned_logits(30, 0), None, Budget(num_seeds=3, batch=8, cap=20), numbers())
    # 24 is the first number of whole batches that is not below the cap.
    assert found.episodes.tolist() == [24.0] * 3 and not found.solved.any()


def test_resets_solve_what_a_random_policy_does_not():
    budget = Budget(num_seeds=4, batch=32, cap=4096)
    from_the_start = solve_chain(cloned_logits(12, 0), None, budget, numbers())
    with_resets = solve_chain(cloned_logits(12, 0), spaced_start(12, 1), budget, numbers())
    assert from_the_start.solved.sum() <= 1 and with_resets.solved.all()
