"""Proofs: what the losses and means of `functional/` do in expectation, by sums over every trajectory.

Every proof is a plain function without arguments, so that `test_mutations.py` can call it on a broken formula.
"""

from functools import partial

import torch

from enumerated import ACCURACY, assert_equal, cases
from rlhf.functional.advantages import baseline, gae
from rlhf.functional.losses import policy_gradient_loss, policy_loss, value_loss
from rlhf.functional.masking import masked_mean, whiten
from rlhf.oracle.exact import policy_gradient, solve
from rlhf.oracle.expectation import expected_gradient
from rlhf.oracle.process import random_logits


def test_at_the_old_policy_the_gradients_of_all_objectives_are_the_policy_gradient():
    for process, logits, critic, listed in cases():
        weights = baseline(listed.rewards, critic[listed.states], listed.mask, 1.0)
        for objective in (
            policy_gradient_loss,
            partial(policy_loss, clip_range=None),
            partial(policy_loss, clip_range=0.2),
        ):
            found = expected_gradient(listed, logits, weights, objective=objective)
            assert_equal(found, policy_gradient(process, logits))


def test_away_from_the_old_policy_the_objectives_are_expectations_in_old_states():
    """Of the advantage under the new policy without a clip, of the smaller of two products with it."""
    num_held = 0
    for process, old_logits, _, listed in cases():
        old, old_policy = solve(process, old_logits), old_logits.softmax(-1)
        logits = old_logits + 0.5 * random_logits(process, torch.Generator().manual_seed(6))
        weights = old.advantages[listed.states, listed.actions]
        for clip_range in (None, 0.2):
            policy = logits.clone().requires_grad_()
            ratio = policy.softmax(-1) / old_policy
            terms = ratio * old.advantages
            if clip_range is not None:
                terms = torch.minimum(terms, ratio.clamp(1 - clip_range, 1 + clip_range) * old.advantages)
                num_held += int((terms < ratio * old.advantages).sum())
            (old.occupancy @ (old_policy * terms).sum(1)).backward()
            objective = partial(policy_loss, clip_range=clip_range)
            found = expected_gradient(listed, logits, weights, objective=objective, old_logits=old_logits)
            assert_equal(found, policy.grad)
    assert num_held > 10, "some ratios are beyond the clip"


def gradient_of_the_clip(advantage, ratio, clip_range):
    """The derivative of -loss of one token in its log-probability."""
    logprob = torch.tensor([[ratio]], dtype=torch.float64).log().requires_grad_()
    zero, mask = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    policy_loss(logprob, zero, torch.tensor([[advantage]], dtype=torch.float64), mask, clip_range).loss.backward()
    return -float(logprob.grad)


def test_clip_and_min_stop_exactly_the_updates_that_have_gone_far_enough():
    """A token that was good and is already likelier, or bad and already less likely, is left alone; nothing else is."""
    table = {
        # sign of the advantage, ratio: is there still a gradient?
        (1.0, 0.5): True,  # good, but became less likely: push it back up, however far it is
        (1.0, 0.79): True,
        (1.0, 1.0): True,
        (1.0, 1.19): True,
        (1.0, 1.21): False,
        (1.0, 3.0): False,
        (-1.0, 0.3): False,
        (-1.0, 0.79): False,
        (-1.0, 0.81): True,
        (-1.0, 1.0): True,
        (-1.0, 1.21): True,
        (-1.0, 3.0): True,  # bad, but became likelier: push it back down
    }
    for (advantage, ratio), moves in table.items():
        expected = advantage * ratio if moves else 0.0
        assert abs(gradient_of_the_clip(advantage, ratio, 0.2) - expected) < 1e-12, (advantage, ratio)
        assert abs(gradient_of_the_clip(advantage, ratio, None) - advantage * ratio) < 1e-12, (advantage, ratio)


def test_the_value_loss_rests_at_the_exact_values():
    """Its expected gradient is 0 at V, and moves a critic that is too high down; the clip is none of this proof's."""
    for process, logits, _, listed in cases():
        exact = solve(process, logits).values
        visits = solve(process, logits).occupancy
        root = listed.probabilities(logits).sqrt().unsqueeze(1)  # a squared error takes its weight as a root
        for offset in (0.0, 0.25):
            critic = (exact + offset).requires_grad_()
            values = critic[listed.states]
            returns = gae(listed.rewards, values.detach(), listed.mask, 1.0, 1.0) + values.detach()
            old = root * values.detach()
            loss = value_loss(root * values, old, root * returns, listed.mask, None, num_tokens=1.0).loss
            (gradient,) = torch.autograd.grad(loss, critic)
            assert float((gradient - offset * visits).abs().max()) < ACCURACY


def test_the_value_clip_holds_a_value_that_has_moved_far_enough_and_no_other():
    table = {
        # value (the old one is 0), return: is there still a gradient?
        (0.1, 1.0): True,
        (0.3, 1.0): False,  # moved up by more than 0.2, as the return wants
        (-0.3, -1.0): False,
        (0.3, -1.0): True,  # moved the wrong way: pulled back
        (-0.3, 1.0): True,
        (0.3, 0.1): True,  # beyond the return
    }
    mask, zero = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.float64)
    for (value, target), moves in table.items():
        values = torch.full((1, 1), value, dtype=torch.float64, requires_grad=True)
        value_loss(values, zero, torch.full_like(zero, target), mask, 0.2).loss.backward()
        assert abs(float(values.grad) - (value - target if moves else 0.0)) < 1e-12, (value, target)


def test_microbatches_add_up_to_the_expected_gradient():
    """Losses of parts, divided by the tokens of the whole, have the gradient of the whole."""
    for process, logits, critic, listed in cases():
        weights = listed.probabilities(logits)[:, None] * baseline(
            listed.rewards, critic[listed.states], listed.mask, 1.0
        )
        num_tokens = float(listed.mask.sum())
        for objective in (policy_gradient_loss, partial(policy_loss, clip_range=0.2)):
            policy = logits.clone().requires_grad_()
            for rows in torch.arange(len(weights)).split(7):
                logprobs, mask = listed.logprobs(policy)[rows], listed.mask[rows]
                part = objective(logprobs, logprobs.detach(), weights[rows], mask, num_tokens=num_tokens)
                (-num_tokens * part.loss).backward()
            assert_equal(policy.grad, policy_gradient(process, logits))


def test_whitened_advantages_have_mean_0_and_variance_1_and_means_leave_out_padding():
    for _, logits, critic, listed in cases():
        weights = baseline(listed.rewards, critic[listed.states], listed.mask, 1.0)
        dirty = torch.where(listed.mask, weights, torch.full_like(weights, 1e6))
        kept = weights[listed.mask]
        assert abs(float(masked_mean(dirty, listed.mask) - kept.sum() / len(kept))) < 1e-12
        white = whiten(dirty, listed.mask)
        assert not white[listed.mask.logical_not()].any()
        assert abs(float(white[listed.mask].mean())) < 1e-12
        # 1e-8 stands beside the variance under the root
        assert abs(float(white[listed.mask].var(correction=0)) - 1.0) < 2e-8 / float(kept.var(correction=0))
        logprobs = listed.logprobs(logits)
        moved = policy_loss(logprobs + 0.1, logprobs, weights, listed.mask, 0.05)
        assert abs(float(moved.approx_kl) - 0.005) < 1e-12
        assert abs(float(moved.ratio_mean.log()) - 0.1) < 1e-12
