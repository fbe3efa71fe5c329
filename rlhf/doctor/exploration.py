"""Check of exploration: whether the policy meets each reward at all, from the prompts and from resets."""

from collections.abc import Sequence
from statistics import median_low

from rlhf.doctor.finding import Finding, graded
from rlhf.doctor.rewards import each_reward, totals
from rlhf.doctor.trial import Trial
from rlhf.errors import RewardError
from rlhf.ppo.parts import Parts
from rlhf.ppo.running_scale import EQUAL_SHARE

SELDOM = 0.1
"""PPO learns from differences: when fewer episodes than this are better than the usual one, it has little to go by."""
BETTER = 0.1
"""Share of the way from the usual score to the best one that a better episode has gone; noise goes less."""
FINETUNE = "finetune the policy on demonstrations first"


def rewards_are_met(parts: Parts, trial: Trial) -> list[Finding]:
    """Count, for each reward, the episodes that are better than the usual one at the prompts; one finding a reward."""
    rollout = trial.experience.rollout
    kept, is_reset = rollout.response_mask.any(1).tolist(), rollout.forced.any(1).tolist()
    findings = []
    for name, reward in each_reward(parts):
        try:
            scores = totals(reward.score(trial.collected.episodes))
        except RewardError:  # the check of the same score has said it
            continue
        at_prompts, at_resets = (
            [score for score, keep, reset in zip(scores, kept, is_reset, strict=True) if keep and reset == kind]
            for kind in (False, True)
        )
        findings.append(
            _is_met(f"exploration, {name}", at_prompts, at_resets, has_resets=parts.trainer.resets is not None)
        )
    return findings


def _is_met(name: str, at_prompts: Sequence[float], at_resets: Sequence[float], *, has_resets: bool) -> Finding:
    everywhere = [*at_prompts, *at_resets]
    usual, best = median_low(at_prompts or everywhere), max(everywhere)
    if best - usual <= EQUAL_SHARE * max(abs(usual), 1.0):
        advice = f"well for a rule that is kept; if the policy never meets it, {FINETUNE}, or see docs/resets.md"
        return Finding(name, "ok", f"no episode is better than the usual {usual:.3g}", advice)
    places = {"prompts": at_prompts, "resets": at_resets}
    found = {place: sum(score > usual + BETTER * (best - usual) for score in at) for place, at in places.items()}
    seldom = {place: found[place] < SELDOM * max(len(at), 1) for place, at in places.items()}
    counts = ", ".join(f"{found[place]} of {len(at)} at {place}" for place, at in places.items() if at)
    advice = f"{FINETUNE}, or begin episodes inside them: reset.fraction (docs/resets.md)"
    if has_resets:
        advice = f"nor do resets: {FINETUNE}, or cut later and other demonstrations (own_best has none at first)"
    return graded(
        name,
        f"better than the usual {usual:.3g}: {counts}",
        warning=f"the policy seldom meets it, and learns only from what it samples - {advice}"
        if all(seldom.values())
        else "",
    )
