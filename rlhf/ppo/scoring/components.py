"""What one reward adds to the score, and its metrics; over all processes."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from rlhf.ppo.scoring.running_scale import EQUAL_SHARE, RunningScale
from rlhf.rewards.component import Answer, Component, Gate, GuardedReward
from rlhf.rewards.protocol import Score
from rlhf.training.processes import Processes


class Part:
    """One reward of the score: asks it, then scales, clips and weights its answers."""

    def __init__(self, component: Component, name: str | None = None) -> None:
        """Take the reward, and a unique name if its own is not."""
        self.name = name or component.name
        self.guarded = GuardedReward(component)
        self.weight, self.options = component.weight, component.options
        self.running = RunningScale()

    def weighted(
        self, answer: Answer, kept: Sequence[bool], gate: Sequence[bool] | None, processes: Processes
    ) -> list[Score]:
        """Return what the reward adds to each episode's score, None where it adds nothing.

        Args:
            answer: the reward's, on this process's episodes.
            kept: [N] which of them are in the update; the others enter no statistic.
            gate: [N] for which of them the reward counts, None for all.
            processes: all of them call this together.
        """
        present = [number for number, keep in zip(answer.totals, kept, strict=True) if keep and number is not None]
        shift, scale = self._scale(present, processes)
        scores = [self._scaled(score, shift, scale) for score in answer.scores]
        if "neutral" in (self.options.on_error, self.options.on_nan):
            mean = _mean_of_all([score for score, keep in zip(scores, kept, strict=True) if keep], processes)
            scores = [mean if index in answer.neutral else score for index, score in enumerate(scores)]
        if gate is not None:
            scores = [score if is_open else None for score, is_open in zip(scores, gate, strict=True)]
        return [_times(score, self.weight) for score in scores]

    def _scale(self, present: Sequence[float], processes: Processes) -> tuple[float, float]:
        if self.options.normalise == "running":
            self.running.update(present, processes)
            return 0.0, self.running.std
        if self.options.normalise == "batch":
            batch = RunningScale()
            batch.update(present, processes)
            return batch.mean, batch.std
        return 0.0, 1.0

    def _scaled(self, score: Score, shift: float, scale: float) -> Score:
        limit = math.inf if self.options.clip is None else self.options.clip
        if isinstance(score, list):
            return [min(max(number / scale, -limit), limit) for number in score]
        return None if score is None else min(max((score - shift) / scale, -limit), limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSummary:
    """What the processes tell each other about the rewards of a step."""

    stop: str | None
    """Why this process must stop."""
    lengths: list[int]
    """Tokens of each response that is in the update."""
    totals: dict[str, list[float | None]]
    """By reward, its score of each of these, before scaling."""
    num_problems: dict[str, tuple[int, int]]
    """By reward, how often it failed, and how many of its scores were NaN or infinite."""
    warnings: dict[str, str]
    """By reward, its first problem that did not stop the run."""
    observations: dict[str, list[float]]
    """By metric, the numbers that rewards reported besides their scores."""
    num_dropped: int
    """Episodes dropped from the update."""


def reward_summary(
    names: Sequence[str], answers: Sequence[Answer], kept: Sequence[bool], lengths: Sequence[int]
) -> RewardSummary:
    """Summarise the answers on this process."""
    stops = [str(answer.stop) for answer in answers if answer.stop is not None]
    by_name = dict(zip(names, answers, strict=True))
    return RewardSummary(
        stop=stops[0] if stops else None,
        lengths=[length for length, keep in zip(lengths, kept, strict=True) if keep],
        totals={
            name: [number for number, keep in zip(answer.totals, kept, strict=True) if keep]
            for name, answer in by_name.items()
        },
        num_problems={
            name: (
                sum(not problem.is_number for problem in answer.problems.values()),
                sum(problem.is_number for problem in answer.problems.values()),
            )
            for name, answer in by_name.items()
        },
        warnings={
            name: answer.problems[min(answer.problems)].message for name, answer in by_name.items() if answer.problems
        },
        observations={
            f"reward/{name}/{key}": numbers
            for name, answer in by_name.items()
            for key, numbers in answer.observations.items()
        },
        num_dropped=len(kept) - sum(kept),
    )


def component_metrics(everyone: Sequence[RewardSummary]) -> dict[str, float]:
    """Return mean, standard deviation and correlations of each reward's raw answers, over the episodes of the update.

    Correlations with a constant are undefined, and left out.
    """
    lengths: list[float | None] = [length for one in everyone for length in one.lengths]
    totals = {name: [number for one in everyone for number in one.totals[name]] for name in everyone[0].totals}
    metrics: dict[str, float] = {}
    for name, numbers in totals.items():
        failed, not_finite = (sum(one.num_problems[name][which] for one in everyone) for which in (0, 1))
        present = [number for number in numbers if number is not None]
        if present:
            metrics[f"reward/{name}/mean"] = statistics.fmean(present)
            metrics[f"reward/{name}/std"] = _deviation(present)
        counts = {"failed": failed, "not_finite": not_finite, "absent": len(numbers) - len(present)}
        metrics |= {f"reward/{name}/{what}": float(count) for what, count in counts.items() if count}
        metrics |= _correlation(f"reward/{name}/length_correlation", numbers, lengths)
    for one, other in combinations(totals, 2):
        metrics |= _correlation(f"reward/{one}/correlation/{other}", totals[one], totals[other])
    for key in sorted({key for one in everyone for key in one.observations}):
        metrics[key] = statistics.fmean(number for one in everyone for number in one.observations.get(key, []))
    dropped = sum(one.num_dropped for one in everyone)
    return {**metrics, **({"reward/dropped_episodes": float(dropped)} if dropped else {})}


def gate_is_open(gate: Gate, answers: Mapping[str, Answer]) -> list[bool]:
    """Return whether the gate is open for each episode; it is closed where the other reward has no score."""
    return [number is not None and number > gate.above for number in answers[gate.reward].totals]


def _times(score: Score, weight: float) -> Score:
    if isinstance(score, list):
        return [weight * number for number in score]
    return None if score is None else weight * score


def _mean_of_all(scores: Sequence[Score], processes: Processes) -> float:
    """Return the mean of the scores that are not None, over all processes; 0 if there are none."""
    present = [sum(score) if isinstance(score, list) else score for score in scores if score is not None]
    count, total = processes.sums([len(present), sum(present)])
    return total / count if count else 0.0


def _deviation(numbers: Sequence[float]) -> float:
    mean = statistics.fmean(numbers)
    return math.sqrt(statistics.fmean((number - mean) ** 2 for number in numbers))


def _correlation(key: str, one: Sequence[float | None], other: Sequence[float | None]) -> dict[str, float]:
    """Return Pearson's correlation over the episodes that have both numbers, nothing where one of them is constant."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return {}
    columns = [[pair[side] for pair in pairs] for side in (0, 1)]
    if any(_deviation(column) <= EQUAL_SHARE * abs(statistics.fmean(column)) for column in columns):
        return {}
    return {key: statistics.correlation(*columns)}
