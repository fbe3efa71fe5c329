"""Tests of rlhf.lab.tabular.tiny_languages."""

from functools import partial

import pytest
import torch

from rlhf.functional.losses import policy_gradient_loss, policy_loss
from rlhf.lab.tabular.episodes import Episodes, Sampler
from rlhf.lab.tabular.stability import OBJECTIVES
from rlhf.lab.tabular.tiny_languages import KL_COEF, Size, languages, objective_of, train, update, update_kl
from rlhf.oracle.exact import optimal_logits, regularised_objective, sequence_kl
from rlhf.oracle.process import random_logits

SIZE = Size(learning_rates=(0.5, 5.0), num_seeds=2, num_batches=4, num_episodes=8)
ONE = torch.ones(1, 1, 1, dtype=torch.float64)


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def sampled(num_episodes):
    process = languages(1, 0).processes[0]
    policy = random_logits(process, numbers()).unsqueeze(0)
    return process, policy, Sampler.of(process, 1).draw(policy, num_episodes, numbers(1))


def test_with_one_epoch_on_whole_batches_all_objectives_are_one():
    drawn = languages(2, 0)
    ends = [train(objective, 1, SIZE, drawn, 0) for objective in OBJECTIVES.values()]
    for end in ends[1:]:
        assert torch.allclose(end.closed, ends[0].closed, rtol=0, atol=1e-12)
        assert torch.allclose(end.largest_kl, ends[0].largest_kl, rtol=0, atol=1e-12)


def test_with_more_epochs_they_part():
    drawn = languages(2, 0)
    naive, surrogate, clipped = [train(objective, 4, SIZE, drawn, 0).closed for objective in OBJECTIVES.values()]
    assert not torch.allclose(naive, surrogate, atol=1e-3) and not torch.allclose(surrogate, clipped, atol=1e-3)


def test_an_update_of_a_run_does_not_depend_on_the_runs_beside_it():
    process, policy, _ = sampled(1)
    policies = policy.repeat(2, 1, 1)
    rates = torch.tensor([1.0, 2.0], dtype=torch.float64).view(2, 1, 1)
    both = Sampler.of(process, 2).draw(policies, 8, numbers(2))
    together = update(policies, both, policy_gradient_loss, 2, rates)
    for run in range(2):
        rows = slice(8 * run, 8 * run + 8)
        alone = Episodes(
            runs=torch.zeros(8, dtype=torch.int64),
            states=both.states[rows],
            actions=both.actions[rows],
            rewards=both.rewards[rows],
            mask=both.mask[rows],
        )
        updated = update(policy, alone, policy_gradient_loss, 2, rates[run : run + 1])
        assert torch.allclose(updated[0], together[run], rtol=0, atol=1e-12)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_an_update_is_an_unbiased_step_up_the_regularised_objective():
    num = 20_000
    process, policy, episodes = sampled(num)
    stepped = update(policy, episodes, policy_gradient_loss, 1, ONE)
    leaf = policy[0].clone().requires_grad_()
    objective = regularised_objective(process, leaf, torch.zeros_like(leaf), KL_COEF)
    (gradient,) = torch.autograd.grad(objective, leaf)
    # Scores are at most 1 and the standard deviation of the returns is below 2: within 5 standard errors.
    assert torch.allclose((stepped - policy)[0], gradient, rtol=0, atol=5 * 2 / num**0.5)
    assert float(gradient.abs().max()) > 2 * 5 * 2 / num**0.5


def test_the_measured_kl_is_the_oracles_from_old_to_new():
    process, policy, episodes = sampled(20_000)
    other = policy + random_logits(process, numbers(5))
    exact, reverse = (float(sequence_kl(process, *pair)) for pair in ((policy[0], other[0]), (other[0], policy[0])))
    # The KL of a state differs from response to response by about as much as it is on average.
    tolerance = 5 * exact / 20_000**0.5
    assert float(update_kl(policy, other, episodes)[0]) == pytest.approx(exact, abs=tolerance)
    assert abs(reverse - exact) > 2 * tolerance


def test_the_best_objective_is_that_of_the_optimal_policy():
    drawn = languages(3, 0)
    for process, start, best in zip(drawn.processes, drawn.starts, drawn.bests, strict=True):
        uniform = torch.zeros_like(process.rewards)
        assert objective_of(process, uniform) == start
        optimum = optimal_logits(process, uniform, KL_COEF)
        assert best > start and best > objective_of(process, optimum + 0.1 * random_logits(process, numbers()))


@pytest.mark.slow
def test_long_training_with_a_clip_comes_near_the_optimum():
    size = Size(learning_rates=(3.0,), num_seeds=2, num_batches=60, num_episodes=64)
    ends = train(partial(policy_loss, clip_range=0.2), 4, size, languages(2, 0), 0)
    assert float(ends.closed.min()) > 0.7 and float(ends.closed.max()) <= 1.0
