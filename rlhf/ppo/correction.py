"""Advantages corrected for an engine whose logprobs differ from the trainer's, and how far they differ."""

from dataclasses import replace

import torch
from torch import Tensor

from rlhf.batches import Experience, Rollout, Samples
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


def correction_of(rollout: Rollout, engine_logprobs: Tensor | None, config: PPOSettings) -> ImportanceWeights | None:
    """Return the importance weights of what an engine drew; None without its logprobs."""
    if engine_logprobs is None:
        return None
    section = config.engine
    assert isinstance(section, ServerEngineSection)
    return importance_weights(
        rollout.logprobs, engine_logprobs, rollout.response_mask, section.correction, *section.bounds
    )


def corrected(experience: Experience, correction: ImportanceWeights | None) -> Experience:
    """Multiply advantages by importance weights, and with them the policy loss; without weights change nothing.

    The weights are not negative: the clipped surrogate of w * A is w times that of A. Returns, and with them the value
    loss, stay as they are.
    """
    if correction is None:
        return experience
    return replace(experience, advantages=experience.advantages * correction.weights)


def correction_metrics(correction: ImportanceWeights | None, mask: Tensor, processes: Processes) -> dict[str, float]:
    """Return how far the engine's logprobs were from the trainer's, over all processes; empty without weights.

    Args:
        correction: of this process.
        mask: [B, T] bool, the tokens that it weighs.
        processes: they add up.
    """
    if correction is None:
        return {}
    num = int(mask.sum())
    sums = processes.sums([num, float(correction.difference) * num, float(correction.truncated) * num])
    return {
        "sampling/logprob_difference": sums[1] / sums[0],
        "sampling/logprob_difference_max": max(processes.gathered([float(correction.largest)])),
        "sampling/share_truncated": sums[2] / sums[0],
    }
