"""PPO on a process with every trajectory in each batch: nothing is sampled, so only the optimum stops it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.functional.advantages import gae, shaped_rewards
from rlhf.functional.kl import kl_estimate
from rlhf.functional.losses import policy_loss, value_loss
from rlhf.oracle.process import Process
from rlhf.oracle.trajectories import Trajectories, enumerate_trajectories


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """PPO's hyperparameters."""

    kl_coef: float
    """Reward units per nat."""
    num_batches: int = 100
    """How many times the new policy replaces the old one."""
    epochs: int = 4
    """Optimizer steps per batch."""
    learning_rate: float = 0.1
    """Adam's, falling linearly to 0."""
    gae_lambda: float = 0.95
    clip_range: float = 0.2


@dataclass(frozen=True, slots=True)
class _Experience:
    weights: Tensor
    """[N, 1] probability of each trajectory."""
    old_logprobs: Tensor
    advantages: Tensor
    returns: Tensor


def ppo(process: Process, ref_logits: Tensor, settings: Settings) -> Tensor:
    """Train a table of logits [S, A], starting from the reference, with a table of values as critic; return the logits.

    Rewards are those of the process minus the KL penalty. A trajectory's return counts as its score, on its last
    token, so the process must have no reward before the end.
    """
    trajectories = enumerate_trajectories(process)
    logits = ref_logits.clone().requires_grad_()
    critic = torch.zeros(process.num_states, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits, critic], lr=settings.learning_rate)
    num_updates = settings.num_batches * settings.epochs
    decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda update: 1.0 - update / num_updates)
    for _ in range(settings.num_batches):
        experience = _experience(trajectories, logits, ref_logits, critic, settings)
        for _ in range(settings.epochs):
            adam.zero_grad()
            _loss(trajectories, logits, critic, experience, settings).backward()
            adam.step()
            decay.step()
    return logits.detach()


@torch.no_grad()
def _experience(
    trajectories: Trajectories, logits: Tensor, ref_logits: Tensor, critic: Tensor, settings: Settings
) -> _Experience:
    mask, old_logprobs = trajectories.mask, trajectories.logprobs(logits)
    kl = kl_estimate(old_logprobs, trajectories.logprobs(ref_logits), "k1")
    scores = trajectories.rewards.sum(1)
    rewards = shaped_rewards(scores, torch.zeros_like(kl), kl, mask, settings.kl_coef)
    values = critic[trajectories.states]
    advantages = gae(rewards, values, mask, 1.0, settings.gae_lambda)
    weights = trajectories.probabilities(logits).unsqueeze(1)
    return _Experience(weights, old_logprobs, advantages, advantages + values)


def _loss(
    trajectories: Trajectories, logits: Tensor, critic: Tensor, experience: _Experience, settings: Settings
) -> Tensor:
    mask = trajectories.mask
    policy = policy_loss(
        trajectories.logprobs(logits),
        experience.old_logprobs,
        experience.weights * experience.advantages,
        mask,
        settings.clip_range,
        num_tokens=1.0,
    )
    # A squared error is weighted by the root of the weight on both sides.
    root = experience.weights.sqrt()
    values, returns = root * critic[trajectories.states], root * experience.returns
    return policy.loss + value_loss(values, values.detach(), returns, mask, None, num_tokens=1.0).loss
