"""From responses to scores: the weighted sum of rewards, the missing-EOS penalty, clipping, normalisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from rlhf.config.ppo import ScoreSection
from rlhf.errors import RewardError
from rlhf.ppo.scoring.components import Part, component_metrics, gate_is_open, reward_summary
from rlhf.ppo.scoring.running_scale import FORM, RunningScale
from rlhf.rewards.checks import checked_scores
from rlhf.rewards.component import Answer, Component
from rlhf.rewards.protocol import Episode, Modelled, Reward
from rlhf.training.processes import Processes
from rlhf.training.storage.schema import Form


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The combined scores of this process's episodes."""

    scores: list[float]
    """[N] weighted sum of the scores of whole responses; 0 for an episode that was dropped."""
    token_scores: list[list[float] | None]
    """[N] weighted sum of token scores, one number per response token; None where no reward gives any."""
    kept: list[bool]
    """[N] False for an episode that is dropped from the update."""
    num_forced: list[int]
    """[N] forced tokens at the start of each response."""
    metrics: dict[str, float]
    """Metrics of each reward, by its name; the same on every process."""

    @property
    def raw(self) -> list[float]:
        """[N] total scores: of whole responses, plus of the tokens that the policy chose."""
        sums = [sum((tokens or [])[n:]) for tokens, n in zip(self.token_scores, self.num_forced, strict=True)]
        return [score + tokens for score, tokens in zip(self.scores, sums, strict=True)]

    @property
    def of_texts(self) -> list[float]:
        """[N] total scores with those of forced tokens, to tell which of two texts is better."""
        return [score + sum(tokens or []) for score, tokens in zip(self.scores, self.token_scores, strict=True)]


def given_scores(numbers: Sequence[float], episodes: Sequence[Episode]) -> Scored:
    """Wrap scores that come from elsewhere, one per episode of this process.

    Raises:
        RewardError: the number of scores is wrong, or one is not a finite number.
    """
    scores = checked_scores(numbers, len(episodes), "scores", [episode.prompt for episode in episodes])
    num = len(scores)
    return Scored(scores=scores, token_scores=[None] * num, kept=[True] * num, num_forced=[0] * num, metrics={})


class Scorer:
    """Scores episodes; a reward that fails on one process stops all of them with the same error."""

    def __init__(
        self,
        rewards: Sequence[Component | tuple[Reward, float]],
        settings: ScoreSection,
        processes: Processes,
    ) -> None:
        """Take rewards with their weights, and their options if they have any."""
        self.rewards = [Component(*reward) for reward in rewards]
        self.running = RunningScale()
        names = [reward.name for reward in self.rewards]
        # Plain pairs of reward and weight have no name of their own.
        own = [name if names.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(names, 1)]
        self._parts = [Part(reward, name) for reward, name in zip(self.rewards, own, strict=True)]
        self._settings = settings
        self._processes = processes
        self._warned: set[str] = set()

    @property
    def models(self) -> list[nn.Module]:
        """The models among the rewards, members of ensembles included."""
        return [model for each in self.rewards if isinstance(each.reward, Modelled) for model in each.reward.models]

    @property
    def asks_early(self) -> bool:
        """Whether some reward wants to be asked about each episode as soon as it is there."""
        return any(part.guarded.asks_early for part in self._parts)

    def begin(self, episode: Episode) -> None:
        """Ask the rewards that want it about one episode of the next `score`; nobody waits."""
        for part in self._parts:
            part.guarded.begin(episode)

    def score(self, episodes: Sequence[Episode], num_forced: Sequence[int] | None = None) -> Scored:
        """Score every episode with every reward.

        Args:
            episodes: of this process.
            num_forced: [N] forced tokens at the start of each response; None if there are none.

        Raises:
            RewardError: a reward failed, here or on another process, or every episode on every process was dropped.
        """
        answers = [part.guarded.answer(episodes) for part in self._parts]
        dropped = frozenset[int]().union(*(answer.dropped for answer in answers))
        kept = [index not in dropped for index in range(len(episodes))]
        forced = [0] * len(episodes) if num_forced is None else list(num_forced)
        emitted = [answer.without_forced(forced) for answer in answers]
        lengths = [len(episode.response_ids) for episode in episodes]
        here = reward_summary([part.name for part in self._parts], emitted, kept, lengths)
        # Only the first process prints: it must know what went wrong on the others.
        everyone = self._processes.gathered([here])
        stops = [one.stop for one in everyone if one.stop is not None]
        warnings = {name: line for one in everyone for name, line in one.warnings.items()}
        if stops:
            raise next((answer.stop for answer in answers if answer.stop is not None), None) or RewardError(stops[0])
        if not any(one.lengths for one in everyone):
            raise RewardError(f"every episode of the step was dropped; {next(iter(warnings.values()))}")
        self._warn(warnings)
        scores, token_scores = self._summed(answers, kept)
        metrics = component_metrics(everyone)
        return Scored(scores=scores, token_scores=token_scores, kept=kept, num_forced=forced, metrics=metrics)

    def shaped(self, raw: Sequence[float], ended: Sequence[bool], kept: Sequence[bool] | None = None) -> list[float]:
        """Return scores as PPO reads them: normalised, clipped, and with the penalty for unfinished responses.

        Args:
            raw: [N] scores of whole responses.
            ended: [N] whether a response is finished.
            kept: [N] which episodes are in the update, None for all; the others score 0 and enter no statistic.
        """
        kept = [True] * len(raw) if kept is None else kept
        scores = list(raw)
        if self._settings.normalise == "running":
            present = [score for score, keep in zip(scores, kept, strict=True) if keep]
            self.running.update(present, self._processes)
            scores = [score / self.running.std for score in scores]
        limit = self._settings.clip
        if limit is not None:
            scores = [min(max(score, -limit), limit) for score in scores]
        penalty = self._settings.missing_eos_penalty
        scores = [score if end else score - penalty for score, end in zip(scores, ended, strict=True)]
        return [score if keep else 0.0 for score, keep in zip(scores, kept, strict=True)]

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        scales = {part.name: part.running.state() for part in self._parts if part.options.normalise == "running"}
        return {"running_scale": self.running.state(), **({"reward_scales": scales} if scales else {})}

    def form(self) -> dict[str, Form]:
        """Return the form of `state`."""
        scales: dict[str, Form] = {part.name: FORM for part in self._parts if part.options.normalise == "running"}
        return {"running_scale": FORM, **({"reward_scales": scales} if scales else {})}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.running.load(state["running_scale"])
        for part in self._parts:
            if part.options.normalise == "running":
                part.running.load(state["reward_scales"][part.name])

    def close(self) -> None:
        """Close every reward; a failure to close is a warning and stops nothing."""
        for part in self._parts:
            problem = part.guarded.close()
            if problem is not None:
                self._processes.say(f"warning: {problem}")

    def _summed(self, answers: Sequence[Answer], kept: Sequence[bool]) -> tuple[list[float], list[list[float] | None]]:
        by_name = {part.name: answer for part, answer in zip(self._parts, answers, strict=True)}
        whole, tokens = [0.0] * len(kept), list[list[float] | None]([None] * len(kept))
        for part, answer in zip(self._parts, answers, strict=True):
            gate = None if part.options.gate is None else gate_is_open(part.options.gate, by_name)
            for index, score in enumerate(part.weighted(answer, kept, gate, self._processes)):
                if score is None or not kept[index]:
                    continue
                if isinstance(score, list):
                    tokens[index] = [a + b for a, b in zip(tokens[index] or [0.0] * len(score), score, strict=True)]
                else:
                    whole[index] += score
        return whole, tokens

    def _warn(self, warnings: Mapping[str, str]) -> None:
        """Warn, once per reward, of a problem that did not stop the run."""
        for name, line in warnings.items():
            if name not in self._warned:
                self._warned.add(name)
                self._processes.say(f"warning: {line} - the run goes on, see on_error and on_nan; counts are logged")
