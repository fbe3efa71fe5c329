"""From a rollout to experience: KL-shaped rewards, advantages, returns."""

from importlib import import_module

import torch
from torch import Tensor

from rlhf.batches import Experience, Rollout
from rlhf.config import PPOSettings
from rlhf.functional.advantages import shaped_rewards
from rlhf.functional.kl import kl_estimate
from rlhf.functional.masking import keep, whiten
from rlhf.training.processes import Processes


def make_experience(rollout: Rollout, kl_coef: float, config: PPOSettings, processes: Processes) -> Experience:
    """Shape rewards with the KL to the reference, estimate advantages, and whiten them over the global batch.

    Returns are advantages + old values, taken before whitening; without a critic nothing reads them.
    """
    mask = rollout.response_mask
    kl = keep(kl_estimate(rollout.logprobs, rollout.ref_logprobs, config.kl_estimator), mask)
    rewards = shaped_rewards(rollout.scores, rollout.token_scores, kl, mask, kl_coef)
    advantages = estimated_advantages(rewards, rollout.values, mask, config)
    returns = keep(advantages + rollout.values, mask)
    if config.whiten_advantages:
        advantages = whitened_globally(advantages, mask, processes)
    return Experience(rollout=rollout, kl=kl, rewards=rewards, advantages=advantages, returns=returns)


def estimated_advantages(rewards: Tensor, values: Tensor, mask: Tensor, config: PPOSettings) -> Tensor:
    """Return unwhitened advantages [B, T] from rewards and values [B, T], by the estimator of `config.advantage`."""
    module, _, name = config.estimator.function.partition(":")
    estimator = getattr(import_module(module), name)
    known = {"values": values, "gae_lambda": config.gae_lambda, "num_samples": config.num_samples_per_prompt}
    read = {argument: known[argument] for argument in config.estimator.reads}
    advantages: Tensor = estimator(rewards=rewards, mask=mask, gamma=config.gamma, **read)
    return advantages


def whitened_globally(advantages: Tensor, mask: Tensor, processes: Processes) -> Tensor:
    """Whiten [B, T] over the tokens of all processes: each process gathers them all and keeps its own."""
    own = advantages[mask]
    everyone = processes.gathered([own.cpu()])
    together = torch.cat(everyone)
    white = whiten(together, torch.ones_like(together, dtype=torch.bool))
    start = sum(len(part) for part in everyone[: processes.rank])
    return torch.zeros_like(advantages).masked_scatter(mask, white[start : start + len(own)].to(advantages))
