"""Check of exploration: whether the policy meets the reward at all, from the prompts and from resets."""

from collections.abc import Sequence
from statistics import mode

from rlhf.doctor.finding import Finding, graded
from rlhf.doctor.trial import Trial
from rlhf.ppo.parts import Parts
from rlhf.ppo.running_scale import EQUAL_SHARE

NAME = "exploration"
SELDOM = 0.1
"""PPO learns from differences: when fewer episodes than this differ from the usual one, it has little to go by."""


def reward_is_met(parts: Parts, trial: Trial) -> Finding:
    """Count the episodes that get another score than the usual one, at the prompts and at resets."""
    rollout = trial.experience.rollout
    raw, is_reset = trial.collected.raw_scores, rollout.forced.any(1).tolist()
    kept = rollout.response_mask.any(1).nonzero().flatten().tolist()
    at_prompts = [raw[row] for row in kept if not is_reset[row]]
    at_resets = [raw[row] for row in kept if is_reset[row]]
    usual = mode(at_prompts or at_resets)
    if not _others(at_prompts + at_resets, usual):
        return Finding(NAME, "skipped", f"all scores are {usual:.3g}", "see reward scale")
    places = {"at prompts": at_prompts, "at resets": at_resets}
    counts = [f"{_others(scores, usual)} of {len(scores)} {place}" for place, scores in places.items() if scores]
    share = _others(at_prompts, usual) / len(at_prompts) if at_prompts else 1.0
    is_best = usual >= max(at_prompts + at_resets)
    return graded(
        NAME,
        f"episodes with another score than the usual {usual:.3g}: {', '.join(counts)}",
        warning="the policy seldom meets the reward, and learns only from what it samples - finetune it on "
        "demonstrations first, or begin episodes inside them: reset.fraction (docs/resets.md)"
        if share < SELDOM and not is_best and parts.trainer.resets is None
        else "",
    )


def _others(scores: Sequence[float], usual: float) -> int:
    return sum(abs(score - usual) > EQUAL_SHARE * max(abs(usual), 1.0) for score in scores)
