"""The expected gradient of an estimator: a loss of `functional/` over every trajectory, weighted by probability."""

from collections.abc import Callable

import torch
from torch import Tensor

from rlhf.functional.losses import PolicyLoss, policy_gradient_loss
from rlhf.oracle.trajectories import Trajectories

Objective = Callable[..., PolicyLoss]
"""A policy loss that takes (logprobs, old_logprobs, advantages, mask, num_tokens=...)."""
Estimate = Callable[[Tensor, Tensor], Tensor]
"""From rewards and mask [B, T] of whole groups to advantages [B, T]."""


def expected_gradient(
    trajectories: Trajectories,
    logits: Tensor,
    advantages: Tensor,
    *,
    objective: Objective = policy_gradient_loss,
    old_logits: Tensor | None = None,
) -> Tensor:
    """Return [S, A], the ascent direction of a policy loss, in expectation over sampled trajectories.

    sum_tau p_old(tau) * grad (-loss of tau),  one loss per trajectory, not per token

    The losses are linear in positive factors of the advantages, so the advantages carry the probabilities.

    Args:
        trajectories: all trajectories of a process.
        logits: [S, A] of the policy that is trained.
        advantages: [N, T] weights of the tokens.
        objective: the loss.
        old_logits: [S, A] of the policy that samples; None for the policy itself.
    """
    old = logits.detach() if old_logits is None else old_logits
    policy = logits.detach().requires_grad_()
    weighed = trajectories.probabilities(old).unsqueeze(1) * advantages
    logprobs, old_logprobs = trajectories.logprobs(policy), trajectories.logprobs(old)
    loss = objective(logprobs, old_logprobs, weighed, trajectories.mask, num_tokens=1.0).loss
    (gradient,) = torch.autograd.grad(-loss, policy)
    return gradient


def expected_group_gradient(trajectories: Trajectories, logits: Tensor, estimate: Estimate, num_samples: int) -> Tensor:
    """Return [S, A], the expectation over groups of independent trajectories, averaged over a group's members.

    Args:
        trajectories: all N trajectories of a process; they form N^K groups.
        logits: [S, A] of the policy that samples and is trained.
        estimate: gives the advantages of rows in adjacent groups of K.
        num_samples: K.
    """
    num = len(trajectories.states)
    groups = torch.cartesian_prod(*[torch.arange(num)] * num_samples)
    members = groups.reshape(-1)
    together = trajectories.probabilities(logits)[groups].prod(1).repeat_interleave(num_samples)
    mask = trajectories.mask[members]
    weighed = together.unsqueeze(1) * estimate(trajectories.rewards[members], mask)
    policy = logits.detach().requires_grad_()
    logprobs = trajectories.logprobs(policy)[members]
    loss = policy_gradient_loss(logprobs, logprobs.detach(), weighed, mask, num_tokens=float(num_samples)).loss
    (gradient,) = torch.autograd.grad(-loss, policy)
    return gradient
