"""Several reward models as one, so that the policy cannot exploit the errors of a single one."""

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import nn

from rlhf.rewards.checks import BadScores, Problem
from rlhf.rewards.protocol import Episode, Modelled

Combine = Literal["mean", "min", "mean_minus_std"]


class Member(Protocol):
    """A model that scores whole responses."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one finite number per episode."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class EnsembleReward:
    """The mean of its members, their minimum, or the mean minus k standard deviations.

    Pessimism where the members disagree is a guard against over-optimisation (Coste et al. 2023, arXiv:2310.02743, call
    the two forms worst-case and uncertainty-weighted optimisation; theirs subtracts the variance, ours the deviation).
    """

    def __init__(self, members: Sequence[Member], *, combine: Combine, k: float) -> None:
        """Take the members; `k` belongs to mean_minus_std."""
        self._members = members
        self._combine = combine
        self._k = k
        self._spread: list[float] = []

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode.

        Raises:
            BadScores: a member cannot score some episodes.
            RewardError: a member failed.
        """
        if not episodes:
            return []
        problems: dict[int, Problem] = {}
        scores = torch.tensor([_asked(member, episodes, problems) for member in self._members], dtype=torch.float64)
        mean, std = scores.mean(0), scores.std(0, correction=0)
        combined = {"mean": mean, "min": scores.amin(0), "mean_minus_std": mean - self._k * std}[self._combine]
        good = [index not in problems for index in range(len(episodes))]
        self._spread = std[torch.tensor(good)].tolist()
        if problems:
            raise BadScores(
                [float(score) if fine else None for score, fine in zip(combined, good, strict=True)], problems
            )
        return [float(score) for score in combined]

    def observations(self) -> dict[str, list[float]]:
        """Return how much the members disagreed in the last call: the biased standard deviation per episode."""
        spread, self._spread = self._spread, []
        return {"disagreement": spread} if spread else {}

    @property
    def models(self) -> list[nn.Module]:
        """The models of the members."""
        return [model for member in self._members if isinstance(member, Modelled) for model in member.models]

    def close(self) -> None:
        """Close every member."""
        for member in self._members:
            member.close()


def _asked(member: Member, episodes: Sequence[Episode], problems: dict[int, Problem]) -> list[float]:
    """Return the scores of a member, 0 where it has none and `problems` says why."""
    try:
        return member.score(episodes)
    except BadScores as bad:
        problems.update({index: problem for index, problem in bad.problems.items() if index not in problems})
        return [score if isinstance(score, float) else 0.0 for score in bad.scores]
