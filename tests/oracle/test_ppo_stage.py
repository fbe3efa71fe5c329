"""Proofs about the PPO stage itself, in the scene of `stage_scene.py`.

Every proof is a plain function without arguments, so that `test_mutations.py` can call it on a broken formula.
"""

import dataclasses

import pytest
import torch

from rlhf.oracle.exact import sequence_kl, solve
from rlhf.oracle.process import random_logits
from stage_scene import ACCURACY, KL_COEF, Scene, all_rows, assert_equal, by_two, experience_of

RUNGS = [
    {"advantage": "trajectory"},
    {"advantage": "reward_to_go"},
    {"advantage": "baseline", "value_coef": 0.0},
    {"advantage": "gae", "gae_lambda": 1.0, "value_coef": 0.0},
    {"advantage": "gae", "gae_lambda": 1.0, "value_coef": 0.0, "objective": "policy_gradient"},
    {"advantage": "gae", "gae_lambda": 1.0, "value_coef": 0.0, "clip_range": None},
    {"advantage": "rloo", "num_samples_per_prompt": 2},
]
STARTS = {(): 0.2, (1,): 0.3, (0, 2): 0.5}
"""With resets: the probability of each forced prefix."""


def test_an_update_follows_the_exact_gradient_of_reward_less_kl_however_it_is_cut():
    scene = Scene()
    for rung in RUNGS:
        for num_parts in (1, 8):  # one microbatch, or many with unequal numbers of tokens
            trainer = scene.trainer(**rung)
            batch = scene.expected(trainer)
            rows = all_rows(batch)
            update = trainer.update(batch, list(rows.split(len(rows) // num_parts)))
            assert_equal(-trainer.policy.logits.grad, scene.exact_gradient())
            assert not trainer.policy.values.grad.any()
            assert update.means["approx_kl"] < 1e-10 and abs(update.means["ratio"] - 1.0) < 1e-6


def test_with_resets_an_update_follows_the_exact_gradient_of_the_objective_from_those_starts():
    """Forced tokens are state: the policy that would have said them is not moved."""
    scene = Scene(STARTS)
    for rung in RUNGS:
        trainer = scene.trainer(**rung)
        batch = scene.expected(trainer)
        assert batch.rollout.forced.sum(1).unique().tolist() == [0, 1, 2]
        assert not batch.rewards[batch.rollout.response_mask.logical_not()].any()
        trainer.update(batch, [all_rows(batch)])
        assert_equal(-trainer.policy.logits.grad, scene.exact_gradient())


def test_with_resets_whitening_reads_no_forced_token():
    """A mean taken off is a baseline: the gradient is the exact one over the spread of the sampled tokens."""
    scene = Scene(STARTS)
    baseline = {"advantage": "baseline", "value_coef": 0.0}
    rollout = scene.rollout()
    plain = experience_of(scene.trainer(**baseline), rollout).advantages[rollout.response_mask]
    spread = plain.std(correction=0)
    trainer = scene.trainer(**baseline, whiten_advantages=True)
    white = experience_of(trainer, rollout).advantages
    assert_equal(white[rollout.response_mask], (plain - plain.mean()) / spread)
    batch = scene.expected(trainer)
    trainer.update(batch, [all_rows(batch)])
    assert_equal(-trainer.policy.logits.grad * spread, scene.exact_gradient())


def test_with_resets_the_value_loss_reads_no_forced_token():
    """Episodes that all begin at (0, 2): the values of (), (0,) and every state not visited get no gradient."""
    scene = Scene({(0, 2): 1.0})
    trainer = scene.trainer(value_coef=1.0, advantage="gae")
    rollout = scene.rollout()
    trainer.update(experience_of(trainer, rollout), [torch.arange(len(rollout.scores))])
    gradient = trainer.policy.values.grad
    here = scene.language.prefixes.index((0, 2))
    assert gradient.nonzero().flatten().tolist() == [here]
    # One token a row: V - mean return, the rewards being score - coef * log-ratio.
    tokens = rollout.response_mask.sum()
    returns = (experience_of(trainer, rollout).rewards.sum(1)).double()
    assert abs(float(gradient[here]) - float((scene.critic[here] - returns).sum() / tokens)) < ACCURACY


def test_two_processes_have_the_gradient_of_one():
    """Each holds rows of another length; the divisor is the tokens of both."""
    scene = Scene()
    critic = {"advantage": "baseline", "value_coef": 0.5}
    for rung in (*RUNGS, critic):
        alone = scene.trainer(**rung)
        whole = scene.expected(alone)
        alone.update(whole, [all_rows(whole)])
        order = whole.rollout.response_mask.sum(1).argsort()
        shares = order[: len(order) // 4], order[len(order) // 4 :]
        tokens = [int(whole.rollout.response_mask[share].sum()) for share in shares]
        assert tokens[0] * 3 < tokens[1]

        def work(processes, rung=rung, whole=whole, shares=shares):
            own = scene.trainer(processes, **rung)
            update = own.update(whole, [shares[processes.rank]])
            return own.policy.logits.grad, own.policy.values.grad, update.means

        (first, first_values, means), (second, second_values, same) = by_two(work)
        assert means == same
        assert_equal(-(first + second), scene.exact_gradient())
        if rung is critic:
            assert_equal(first_values + second_values, alone.policy.values.grad)


def test_two_processes_whiten_over_the_batch_of_both():
    scene = Scene()
    rollout = scene.rollout()
    expected = experience_of(scene.trainer(whiten_advantages=True), rollout).advantages
    assert abs(float(expected[rollout.response_mask].mean())) < ACCURACY
    shares = torch.arange(9), torch.arange(9, len(scene.weights))

    def work(processes):
        own = scene.trainer(processes, whiten_advantages=True)
        return experience_of(own, rollout.rows(shares[processes.rank])).advantages

    assert_equal(torch.cat(by_two(work)), expected, 1e-5)


def test_returns_are_taken_before_whitening_and_are_targets_of_the_exact_values():
    """With the exact critic the expected return of every state is its value."""
    scene = Scene()
    kl = (scene.logits.softmax(1) * (scene.logits.log_softmax(1) - scene.ref_logits.log_softmax(1))).sum(1)
    shaped = dataclasses.replace(scene.process, rewards=scene.process.rewards - KL_COEF * kl[:, None])
    solution = solve(shaped, scene.logits)
    trainer = scene.trainer(whiten_advantages=True, gae_lambda=1.0)
    batch = experience_of(trainer, scene.rollout(values=solution.values, num_padding=0))
    sums = torch.zeros_like(solution.values)
    flat = (scene.weights[:, None] * batch.returns.double() * scene.listed.mask).flatten()
    sums.index_add_(0, scene.listed.states.flatten(), flat)
    assert_equal(sums, solution.occupancy * solution.values)


def test_the_sequence_kl_is_the_exact_kl_and_holds_an_adaptive_coefficient_at_its_target():
    """With resets it is the KL of what follows the forced tokens."""
    for scene in (Scene(), Scene(STARTS)):
        exact = float(sequence_kl(scene.process, scene.logits, scene.ref_logits))
        control = {"controller": "adaptive", "target": exact, "horizon": 100}
        trainer = scene.trainer(kl_control=control)
        batch = experience_of(trainer, scene.rollout())
        # A mean over episodes, so that probabilities enter as in `expected`.
        factor = (scene.weights * len(scene.weights)).float().unsqueeze(1)
        measured = trainer.sequence_kl(dataclasses.replace(batch, kl=batch.kl * factor))
        assert abs(measured - exact) < ACCURACY
        # 64 episodes of 100: errors 0, 0.1, clipped 0.2 and -0.2
        for share, growth in ((1.0, 1.0), (1.1, 1.064), (5.0, 1.128), (0.0, 0.872)):
            trainer.kl_control.coef = KL_COEF
            trainer.kl_control.update(share * measured, 64)
            assert trainer.kl_control.coef == pytest.approx(KL_COEF * growth, rel=1e-5)


def test_padding_enters_no_mean_of_an_update():
    scene = Scene()
    seen = []
    for num_padding in (0, 40):
        trainer = scene.trainer()
        rollout = scene.rollout(num_padding=num_padding)
        with torch.no_grad():
            trainer.policy.logits += 0.3 * random_logits(scene.process, torch.Generator().manual_seed(1)).float()
        update = trainer.update(experience_of(trainer, rollout), [torch.arange(len(scene.weights))])
        seen.append(update.means)
        log_ratio = trainer.policy.logits.detach().log_softmax(1) - scene.logits.log_softmax(1)
        kept = log_ratio[scene.listed.states, scene.listed.actions][scene.listed.mask]
        assert update.means["approx_kl"] == pytest.approx(float(kept.square().mean() / 2), rel=1e-5)
        assert update.means["ratio"] == pytest.approx(float(kept.exp().mean()), rel=1e-5)
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)


def test_the_entropy_bonus_pushes_towards_entropy():
    scene = Scene()
    trainer = scene.trainer(entropy_coef=0.5, advantage="reward_to_go")
    batch = experience_of(trainer, scene.rollout())
    still = dataclasses.replace(batch, advantages=torch.zeros_like(batch.advantages))
    trainer.update(still, [torch.arange(len(scene.weights))])
    policy = scene.logits.clone().requires_grad_()
    distribution = policy.log_softmax(1)
    entropy = -(distribution.exp() * distribution).sum(1)
    (0.5 * entropy[scene.listed.states][scene.listed.mask].mean()).backward()
    assert_equal(-trainer.policy.logits.grad, policy.grad)
