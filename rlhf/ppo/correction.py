"""Advantages corrected for an engine whose logprobs differ from the trainer's, and how far they differ."""

from dataclasses import replace

import torch
from torch import Tensor

from rlhf.batches import Experience, Samples
from rlhf.config import PPOSettings
from rlhf.config.engine import ServerEngineSection
from rlhf.functional.importance import ImportanceWeights, importance_weights
from rlhf.ppo.responses import Responses
from rlhf.training.processes import Processes


def placed_logprobs(samples: Samples, responses: Responses) -> Tensor:
    """Return the engine's logprobs [B, T] at the places of the whole responses, 0 on forced tokens."""
    placed = torch.zeros_like(responses.response_ids, dtype=torch.float32)
    placed[responses.response_mask] = samples.logprobs[samples.response_mask]
    return placed


def corrected(experience: Experience, engine_logprobs: Tensor | None, config: PPOSettings) -> Experience:
    """Multiply advantages by importance weights, and with them the policy loss; without logprobs change nothing.

    The weights are not negative: the clipped surrogate of w * A is w times that of A. Returns, and with them the value
    loss, stay as they are.
    """
    if engine_logprobs is None:
        return experience
    weights = _weights(experience, engine_logprobs, config).weights
    return replace(experience, advantages=experience.advantages * weights)


def correction_metrics(
    experience: Experience, engine_logprobs: Tensor | None, config: PPOSettings, processes: Processes
) -> dict[str, float]:
    """Return how far the engine's logprobs were from the trainer's, over all processes; empty without them."""
    if engine_logprobs is None:
        return {}
    found = _weights(experience, engine_logprobs, config)
    num = int(experience.rollout.response_mask.sum())
    tokens, difference, cut = processes.sums([num, float(found.difference) * num, float(found.truncated) * num])
    return {"sampling/logprob_difference": difference / tokens, "sampling/share_truncated": cut / tokens}


def _weights(experience: Experience, engine_logprobs: Tensor, config: PPOSettings) -> ImportanceWeights:
    section = config.engine
    assert isinstance(section, ServerEngineSection)
    rollout = experience.rollout
    return importance_weights(
        rollout.logprobs, engine_logprobs, rollout.response_mask, section.correction, *section.bounds
    )
