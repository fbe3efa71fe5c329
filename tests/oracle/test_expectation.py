"""Proofs: what the estimators of `functional/` do in expectation, by sums over every trajectory.

Every proof is a plain function without arguments, so that `test_mutations.py` can call it on a broken formula.
"""

from functools import partial

import torch

from enumerated import ACCURACY, assert_equal, cases
from rlhf.functional.advantages import baseline, gae, reward_to_go, shaped_rewards, trajectory_return
from rlhf.functional.groups import group_normalised, rloo
from rlhf.functional.kl import kl_estimate
from rlhf.oracle.chain import chain
from rlhf.oracle.exact import (
    gae_bias,
    gradient_of_weights,
    policy_gradient,
    regularised_objective,
    sequence_kl,
    solve,
)
from rlhf.oracle.expectation import expected_gradient, expected_group_gradient
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits, random_process
from rlhf.oracle.trajectories import enumerate_trajectories


def test_the_whole_return_and_the_reward_to_go_are_unbiased():
    for process, logits, _, listed in cases():
        for rung in (trajectory_return, reward_to_go):
            weights = rung(listed.rewards, listed.mask, 1.0)
            assert_equal(expected_gradient(listed, logits, weights), policy_gradient(process, logits))


def test_a_baseline_of_the_state_leaves_the_expected_gradient_unchanged():
    for process, logits, critic, listed in cases():
        for values in (critic, solve(process, logits).values, torch.full_like(critic, 7.0)):
            weights = baseline(listed.rewards, values[listed.states], listed.mask, 1.0)
            assert_equal(expected_gradient(listed, logits, weights), policy_gradient(process, logits))


def test_gae_with_lambda_1_is_unbiased_for_any_critic_and_every_lambda_for_the_exact_one():
    for process, logits, critic, listed in cases():
        exact = solve(process, logits).values
        for gae_lambda, values in ((1.0, critic), (1.0, exact), (0.9, exact), (0.0, exact)):
            weights = gae(listed.rewards, values[listed.states], listed.mask, 1.0, gae_lambda)
            assert_equal(expected_gradient(listed, logits, weights), policy_gradient(process, logits))


def test_the_bias_of_gae_with_a_wrong_critic_is_what_theory_says():
    for process, logits, critic, listed in cases():
        errors = critic - solve(process, logits).values
        for gae_lambda in (0.0, 0.5, 0.95):
            weights = gae(listed.rewards, critic[listed.states], listed.mask, 1.0, gae_lambda)
            bias = expected_gradient(listed, logits, weights) - policy_gradient(process, logits)
            assert_equal(bias, gradient_of_weights(process, logits, gae_bias(process, logits, errors, gae_lambda)))
        assert not gae_bias(process, logits, errors, 1.0).any()


def test_the_exact_advantage_has_the_exact_gradient():
    for process, logits, _, listed in cases():
        solution = solve(process, logits)
        for table in (solution.action_values, solution.advantages):
            weights = table[listed.states, listed.actions]
            assert_equal(expected_gradient(listed, logits, weights), policy_gradient(process, logits))


def test_under_a_discount_the_whole_return_is_unbiased_and_the_reward_to_go_lacks_its_factor():
    gamma = 0.8
    for process, logits, critic, listed in cases():
        exact = policy_gradient(process, logits, gamma)
        whole = trajectory_return(listed.rewards, listed.mask, gamma)
        assert_equal(expected_gradient(listed, logits, whole), exact)
        factor = gamma ** torch.arange(listed.mask.shape[1], dtype=torch.float64)
        values = critic[listed.states]
        for weights in (
            reward_to_go(listed.rewards, listed.mask, gamma),
            baseline(listed.rewards, values, listed.mask, gamma),
            gae(listed.rewards, values, listed.mask, gamma, 1.0),
        ):
            assert_equal(expected_gradient(listed, logits, factor * weights), exact)
            without = gradient_of_weights(process, logits, solve(process, logits, gamma).action_values)
            assert_equal(expected_gradient(listed, logits, weights), without)
            assert float((without - exact).abs().max()) > 1e-4


def test_rloo_is_unbiased():
    small = [(chain(3), 3), (random_process(2, 2, 2, torch.Generator().manual_seed(3)), 3)]
    small += [(tiny_language(4, 3, torch.Generator().manual_seed(4)).process, 2)]
    for process, num_samples in small:
        logits = random_logits(process, torch.Generator().manual_seed(5))
        estimate = partial(rloo, gamma=1.0, num_samples=num_samples)
        found = expected_group_gradient(enumerate_trajectories(process), logits, estimate, num_samples)
        assert_equal(found, policy_gradient(process, logits))


def test_two_normalised_samples_climb_the_probability_of_beating_oneself():
    process = tiny_language(4, 3, torch.Generator().manual_seed(4)).process
    listed, logits = enumerate_trajectories(process), random_logits(process, torch.Generator().manual_seed(5))
    estimate = partial(group_normalised, gamma=1.0, num_samples=2)
    found = expected_group_gradient(listed, logits, estimate, 2)
    policy = logits.clone().requires_grad_()
    half = (listed.rewards.sum(1)[:, None] - listed.rewards.sum(1)) / 2
    wins = half / (half.square() + 1e-8).sqrt()  # the sign of the difference, but for the guard under the root
    objective = listed.probabilities(policy) @ wins @ listed.probabilities(logits)
    objective.backward()
    assert_equal(found, policy.grad)
    assert float((found - policy_gradient(process, logits)).abs().max()) > 1e-4, "not the gradient of the return"


def test_k1_in_the_rewards_gives_the_gradient_of_the_regularised_objective():
    seeds = torch.Generator().manual_seed(7)
    for index, (process, logits, critic, listed) in enumerate(cases()):
        ref_logits = random_logits(process, seeds)
        kl = kl_estimate(listed.logprobs(logits), listed.logprobs(ref_logits), "k1")
        # On the random process the rewards of the steps stand as token scores; elsewhere the end is scored.
        scores = torch.zeros(len(kl), dtype=torch.float64) if index == 1 else listed.rewards.sum(1)
        token_scores = listed.rewards if index == 1 else torch.zeros_like(kl)
        rewards = shaped_rewards(scores, token_scores, kl, listed.mask, 0.3)
        policy = logits.clone().requires_grad_()
        objective = regularised_objective(process, policy, ref_logits, 0.3)
        objective.backward()
        assert abs(float(listed.probabilities(logits) @ rewards.sum(1) - objective.detach())) < ACCURACY
        for weights in (
            reward_to_go(rewards, listed.mask, 1.0),
            gae(rewards, critic[listed.states], listed.mask, 1.0, 1.0),
        ):
            assert_equal(expected_gradient(listed, logits, weights), policy.grad)


def test_k3_in_the_rewards_misses_the_gradient_by_that_of_the_reverse_kl():
    """E[k3] is the KL, but k3 depends on the policy, and a reward is not differentiated."""
    seeds = torch.Generator().manual_seed(7)
    for process, logits, _, listed in cases():
        ref_logits = random_logits(process, seeds)
        kl = kl_estimate(listed.logprobs(logits), listed.logprobs(ref_logits), "k3")
        found = expected_gradient(listed, logits, reward_to_go(kl, listed.mask, 1.0))
        policy = logits.clone().requires_grad_()
        reverse = (ref_logits.softmax(1) * (ref_logits.log_softmax(1) - policy.log_softmax(1))).sum(1)
        missed = solve(process, logits).occupancy @ reverse
        (sequence_kl(process, policy, ref_logits) - missed).backward()
        assert_equal(found, policy.grad)
