"""Each reward's scores of the trial's episodes: computed once, read by every check that needs them."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.config import PPOConfig
from rlhf.doctor.trial import Trial
from rlhf.errors import RewardError
from rlhf.ppo.run.assembly import PPORun
from rlhf.rewards.protocol import Reward


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One reward, and its scores of all episodes in their order."""

    name: str
    """What the config calls it."""
    reward: Reward
    scores: list[float] | RewardError
    """[N] one number per episode, or why there is none."""


def each_verdict(parts: PPORun, trial: Trial) -> list[Verdict]:
    """Score the trial's episodes with each reward."""
    config = parts.trainer.config
    assert isinstance(config, PPOConfig)  # a run that the doctor examines comes from a file
    return [
        Verdict(
            name=f"rewards[{place}] ({config.rewards[place].kind})",
            reward=component.reward,
            scores=_scores(component.reward, trial),
        )
        for place, component in enumerate(parts.trainer.collector.scorer.rewards)
    ]


def totals(scores: Sequence[object]) -> list[float]:
    """Return one number per episode: the sum where a reward scores single tokens, 0 where it gives None."""
    return [float(sum(s)) if isinstance(s, list) else 0.0 if s is None else float(s) for s in scores]  # type: ignore[arg-type]


def _scores(reward: Reward, trial: Trial) -> list[float] | RewardError:
    try:
        return totals(reward.score(trial.collected.episodes))
    except RewardError as error:
        return error
