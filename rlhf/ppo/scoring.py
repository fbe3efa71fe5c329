"""From responses to scores: the weighted sum of rewards, the missing-EOS penalty, clipping, normalisation."""

import math
from collections.abc import Sequence

from rlhf.config.ppo import ScoreSection
from rlhf.errors import RewardError, RlhfError
from rlhf.rewards.protocol import Episode, Reward
from rlhf.training.processes import Processes

EQUAL_SHARE = 1e-6
"""Scores whose standard deviation is below this share of their mean are equal up to float32 rounding."""


class RunningScale:
    """Mean and variance of all scores seen so far, over all processes (Chan et al. 1979, parallel update)."""

    def __init__(self) -> None:
        self.count = 0.0
        self.mean = 0.0
        self.squares = 0.0

    @property
    def std(self) -> float:
        """Biased standard deviation; 1 while all scores are equal (dividing by rounding errors would blow them up)."""
        std = math.sqrt(self.squares / self.count) if self.count else 0.0
        return std if std > EQUAL_SHARE * abs(self.mean) else 1.0

    def update(self, scores: Sequence[float], processes: Processes) -> None:
        """Take in the scores of one batch."""
        count, total = processes.sums([len(scores), sum(scores)])
        mean = total / count
        (squares,) = processes.sums([sum((score - mean) ** 2 for score in scores)])
        delta, joint = mean - self.mean, self.count + count
        self.squares += squares + delta**2 * self.count * count / joint
        self.mean += delta * count / joint
        self.count = joint

    def state(self) -> dict[str, float]:
        """Return what a checkpoint holds."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load(self, state: dict[str, float]) -> None:
        """Go back to a saved state."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


class Scorer:
    """Scores episodes; a reward that fails on one process stops all of them with the same error."""

    def __init__(self, rewards: Sequence[tuple[Reward, float]], settings: ScoreSection, processes: Processes) -> None:
        """Take rewards with their weights."""
        self.rewards = rewards
        self.running = RunningScale()
        self._settings = settings
        self._processes = processes

    def raw(self, episodes: Sequence[Episode]) -> list[float]:
        """Return the weighted sum of the rewards of each episode.

        Raises:
            RewardError: a reward failed, here or on another process.
        """
        problem: RlhfError | None = None
        total = [0.0] * len(episodes)
        try:
            for reward, weight in self.rewards:
                total = [a + weight * b for a, b in zip(total, reward.score(episodes), strict=True)]
        except RlhfError as error:
            problem = error
        # Only the first process prints: it must hear what went wrong on the others.
        heard = self._processes.gathered([] if problem is None else [str(problem)])
        if heard:
            raise problem or RewardError(heard[0])
        return total

    def shaped(self, raw: Sequence[float], ended: Sequence[bool]) -> list[float]:
        """Return scores as PPO reads them: normalised, clipped, and with the penalty for responses without an end."""
        scores = list(raw)
        if self._settings.normalise == "running":
            self.running.update(scores, self._processes)
            scores = [score / self.running.std for score in scores]
        limit = self._settings.clip
        if limit is not None:
            scores = [min(max(score, -limit), limit) for score in scores]
        penalty = self._settings.missing_eos_penalty
        return [score if end else score - penalty for score, end in zip(scores, ended, strict=True)]

    def close(self) -> None:
        """Close every reward."""
        for reward, _ in self.rewards:
            reward.close()
