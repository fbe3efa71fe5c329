"""Check of exploration: how often the policy earns each reward, from the prompts and from resets."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median_low

from rlhf.doctor.finding import Finding, graded
from rlhf.doctor.trial import Trial
from rlhf.doctor.verdicts import Verdict
from rlhf.errors import RewardError
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.scoring.running_scale import EQUAL_SHARE

SELDOM = 0.1
"""PPO learns from differences: when fewer episodes than this are better than the usual one, it has little to go by."""
OFTEN = 0.25
"""When more episodes than this are better, no exploration is needed; measured on a dense reward (about 0.4)."""
BETTER = 0.1
"""An episode is better from this share of the way between the usual score and the best one; noise stays below it."""
FINETUNE = "finetune the policy on demonstrations first"


@dataclass(frozen=True)
class Reach:
    """How often episodes earn one reward."""

    name: str
    at_prompts: Sequence[float]
    """Scores of the episodes that began at their prompts."""
    at_resets: Sequence[float]
    """Scores of those that began inside demonstrations."""

    @cached_property
    def usual(self) -> float:
        """The median at prompts."""
        return median_low(self.at_prompts or self.at_resets)

    @cached_property
    def best(self) -> float:
        """The best score of all."""
        return max([*self.at_prompts, *self.at_resets])

    @property
    def has_better(self) -> bool:
        """Whether any episode is better than the usual one."""
        return self.best - self.usual > EQUAL_SHARE * max(abs(self.usual), 1.0)

    @property
    def counts(self) -> str:
        """How many episodes are better than the usual one, and where they began."""
        places = {"prompts": self.at_prompts, "resets": self.at_resets}
        return ", ".join(f"{self._num_better(at)} of {len(at)} at {place}" for place, at in places.items() if at)

    def share(self, scores: Sequence[float]) -> float:
        """Return the share of better episodes among some; 0 of none."""
        return self._num_better(scores) / max(len(scores), 1)

    def _num_better(self, scores: Sequence[float]) -> int:
        return sum(score > self.usual + BETTER * (self.best - self.usual) for score in scores)


def rewards_are_met(parts: PPORun, trial: Trial, verdicts: Sequence[Verdict]) -> list[Finding]:
    """Count the episodes better than the usual one for each reward; one finding per reward, and one of resets."""
    has_resets = parts.trainer.resets is not None
    reaches = _reaches(trial, verdicts)
    findings = [_is_met(reach, has_resets=has_resets) for reach in reaches]
    if has_resets and reaches and all(reach.share(reach.at_prompts) >= OFTEN for reach in reaches):
        findings.append(
            Finding(
                "resets",
                "warning",
                f"episodes from prompts earn every reward in {OFTEN:.0%} of cases or more",
                "no exploration is needed, and resets take episodes from the states that count: in our measurements "
                "they then cost score (docs/resets.md) - compare with reset.fraction=0",
            )
        )
    return findings


def _reaches(trial: Trial, verdicts: Sequence[Verdict]) -> list[Reach]:
    rollout = trial.experience.rollout
    kept, is_reset = rollout.response_mask.any(1).tolist(), rollout.forced.any(1).tolist()
    reaches = []
    for verdict in verdicts:
        if isinstance(verdict.scores, RewardError):  # the check "same score" has reported it
            continue
        at_prompts, at_resets = (
            [score for score, keep, reset in zip(verdict.scores, kept, is_reset, strict=True) if keep and reset == kind]
            for kind in (False, True)
        )
        reaches.append(Reach(verdict.name, at_prompts, at_resets))
    return reaches


def _is_met(reach: Reach, *, has_resets: bool) -> Finding:
    name = f"exploration, {reach.name}"
    if not reach.has_better:
        advice = f"good for a rule that all keep; for a reward that none earns, {FINETUNE}, or see docs/resets.md"
        return Finding(name, "ok", f"no episode is better than the usual {reach.usual:.3g}", advice)
    advice = f"{FINETUNE}, or begin episodes inside them: reset.fraction (docs/resets.md)"
    if has_resets:
        advice = f"resets do not help: {FINETUNE}, or cut later or other demonstrations (own_best has none at first)"
    return graded(
        name,
        f"better than the usual {reach.usual:.3g}: {reach.counts}",
        warning=f"the policy seldom earns it, and learns only from what it samples - {advice}"
        if max(reach.share(reach.at_prompts), reach.share(reach.at_resets)) < SELDOM
        else "",
    )
