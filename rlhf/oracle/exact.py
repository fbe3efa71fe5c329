"""Exact answers by linear algebra: values, advantages, J and its gradient, KL, the best policy near a reference.

A policy moves through the states by the matrix P_pi[s, s'] = sum_a pi(a | s) P(s' | s, a), which is strictly upper
triangular, so every sum over time solves a triangular system.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.functional.kl import exact_kl
from rlhf.oracle.process import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The exact quantities of a policy, differentiable in its logits."""

    objective: Tensor
    """Scalar J, the expected return."""
    values: Tensor
    """[S] V(s)."""
    action_values: Tensor
    """[S, A] Q(s, a)."""
    advantages: Tensor
    """[S, A] Q - V."""
    occupancy: Tensor
    """[S] expected visits, each weighted by gamma^t."""


def solve(process: Process, logits: Tensor, gamma: float = 1.0) -> Solution:
    """Evaluate a policy.

    V = (I - gamma P_pi)^-1 r_pi,  Q = r + gamma P V,  J = start . V,  d = start (I - gamma P_pi)^-1

    Args:
        process: the process that the policy acts in.
        logits: [S, A] float64 of the policy.
        gamma: discount per step.
    """
    policy = logits.softmax(-1)
    system = _system(process, policy, gamma)
    expected_rewards = (policy * process.rewards).sum(1, keepdim=True)
    values = torch.linalg.solve_triangular(system, expected_rewards, upper=True).squeeze(1)
    action_values = process.rewards + gamma * process.transitions @ values
    occupancy = torch.linalg.solve_triangular(system.T, process.start.unsqueeze(1), upper=False).squeeze(1)
    return Solution(
        objective=process.start @ values,
        values=values,
        action_values=action_values,
        advantages=action_values - values.unsqueeze(1),
        occupancy=occupancy,
    )


def policy_gradient(process: Process, logits: Tensor, gamma: float = 1.0) -> Tensor:
    """Return [S, A], the gradient of J in the logits, by differentiating the solution of the triangular system."""
    policy = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(solve(process, policy, gamma).objective, policy)
    return gradient


def gradient_of_weights(process: Process, logits: Tensor, weights: Tensor) -> Tensor:
    """Return [S, A] sum_s d(s) sum_a weights(s, a) * grad pi(a | s): the policy gradient theorem for weights [S, A].

    With Q or A as weights it is the gradient of J.
    """
    policy = logits.softmax(-1)
    centred = weights - (policy * weights).sum(1, keepdim=True)
    return solve(process, logits).occupancy.unsqueeze(1) * policy * centred


def sequence_kl(process: Process, logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Return the KL in nats between the trajectories of two policies: sum_s d(s) KL(pi(. | s) || ref(. | s))."""
    return solve(process, logits).occupancy @ exact_kl(logits, ref_logits)


def regularised_objective(process: Process, logits: Tensor, ref_logits: Tensor, kl_coef: float) -> Tensor:
    """Return J - kl_coef * KL(policy || reference), which PPO with a KL penalty maximises."""
    return solve(process, logits).objective - kl_coef * sequence_kl(process, logits, ref_logits)


def optimal_logits(process: Process, ref_logits: Tensor, kl_coef: float) -> Tensor:
    """Return [S, A] log-probabilities of the policy that maximises `regularised_objective`.

    V*(s) = kl_coef * log sum_a ref(a | s) exp(Q*(s, a) / kl_coef),  pi* = ref * exp((Q* - V*) / kl_coef)

    In a deterministic process the trajectories of pi* have probability ref * exp(return / kl_coef) / Z.

    Source: Ziebart 2010, "Modeling purposeful adaptive behavior"; for language models Korbak et al. 2022,
    arXiv:2205.11275, section 3.
    """
    tilted = torch.empty_like(ref_logits)
    log_ref = ref_logits.log_softmax(-1)
    values = torch.zeros(process.num_states, dtype=torch.float64)
    for state in reversed(range(process.num_states)):
        action_values = process.rewards[state] + process.transitions[state] @ values
        tilted[state] = log_ref[state] + action_values / kl_coef
        values[state] = kl_coef * tilted[state].logsumexp(0)
    return tilted.log_softmax(-1)


def gae_bias(process: Process, logits: Tensor, errors: Tensor, gae_lambda: float) -> Tensor:
    """Return [S, A], the bias E[GAE] - A of GAE with an inexact critic, up to a function of the state.

    With critic U = V + e, TD errors telescope to
    E[GAE | s, a] = A(s, a) - e(s) + (1 - lambda) * sum_k lambda^k E[e(s_{k+1}) | s, a]
                  = A(s, a) - e(s) + (1 - lambda) * P (I - lambda P_pi)^-1 e.
    The term -e(s) is a baseline; this returns the last term. It is 0 for lambda 1, and for an exact critic.

    Args:
        process: the process that the policy acts in, undiscounted.
        logits: [S, A] of the policy.
        errors: [S] e, critic minus V.
        gae_lambda: lambda.
    """
    system = _system(process, logits.softmax(-1), gae_lambda)
    ahead = torch.linalg.solve_triangular(system, errors.unsqueeze(1), upper=True).squeeze(1)
    bias: Tensor = (1.0 - gae_lambda) * process.transitions @ ahead
    return bias


def _system(process: Process, policy: Tensor, discount: float) -> Tensor:
    moves = torch.einsum("sa,sat->st", policy, process.transitions)
    return torch.eye(process.num_states, dtype=torch.float64) - discount * moves
