"""One reward of a run with its options: asked within a deadline, its answers remembered, its failures sorted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from rlhf.errors import RewardError, RlhfError
from rlhf.rewards.answers import checked_answers, total
from rlhf.rewards.cache import ScoreCache, cache_key
from rlhf.rewards.checks import BadScores, Problem
from rlhf.rewards.deadline import NoAnswer, Worker
from rlhf.rewards.protocol import Episode, Observing, Reward, Score

T = TypeVar("T")

Policy = Literal["stop", "drop_episode", "neutral"]
"""Stop the run; leave the episode out of the update; or give it the mean that the reward gave to the others."""


class Gate(NamedTuple):
    """A reward counts only where another one says enough."""

    reward: str
    """The name of the other one."""
    above: float
    """What its own number, before any scaling, must exceed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What happens to the answers of a reward."""

    clip: float | None = None
    """Scores are clipped to [-clip, clip], after normalisation."""
    normalise: Literal["none", "running", "batch"] = "none"
    """Divide by the deviation of all scores so far; or shift and scale each batch to mean 0 and deviation 1."""
    gate: Gate | None = None
    cache: int = 0
    """How many scores are remembered."""
    on_error: Policy = "stop"
    """When the reward fails, or answers with something else than a number."""
    on_nan: Policy = "stop"
    """When a score is NaN or infinite."""
    deadline: float | None = None
    """Seconds that a call may take; None waits for ever."""


class Component(NamedTuple):
    """A reward, its weight in the score, and its name in logs."""

    reward: Reward
    weight: float = 1.0
    name: str = "reward"
    options: Options = Options()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a reward said about the episodes of this process."""

    scores: list[Score]
    """[N] None where the reward does not apply or failed."""
    problems: Mapping[int, Problem] = field(default_factory=dict)
    """What was wrong, by episode, where the run goes on nevertheless."""
    dropped: frozenset[int] = frozenset()
    """Episodes that leave the update."""
    neutral: frozenset[int] = frozenset()
    """Episodes that get the mean of the others."""
    stop: RlhfError | None = None
    """Why the run must stop."""
    observations: Mapping[str, list[float]] = field(default_factory=dict)
    """What else the reward noted."""

    @property
    def totals(self) -> list[float | None]:
        """The scores of whole responses."""
        return [total(score) for score in self.scores]

    def without_forced(self, num_forced: Sequence[int]) -> "Answer":
        """Return the same with 0 at the tokens that the policy did not choose: [N] at the start of each response."""
        scores: list[Score] = [
            [0.0] * num + score[num:] if isinstance(score, list) else score
            for score, num in zip(self.scores, num_forced, strict=True)
        ]
        return replace(self, scores=scores)


class Asker:
    """Asks one reward, and never raises for what the reward does: the processes decide together."""

    def __init__(self, component: Component) -> None:
        """Take the reward."""
        self._reward, _, self.name, self._options = component
        self._where = f"reward {self.name!r}"
        self._cache = ScoreCache(self._options.cache) if self._options.cache else None
        self._worker = None if self._options.deadline is None else Worker(self._where)

    def answer(self, episodes: Sequence[Episode]) -> Answer:
        """Return what the reward says, and what is to be done where it says nothing usable."""
        nothing: list[Score] = [None] * len(episodes)
        try:
            scores, problems = self._remembered(episodes)
        except BadScores as bad:
            return self._sorted(bad.scores, bad.problems, bad)
        except RewardError as error:
            return self._sorted(nothing, dict.fromkeys(range(len(episodes)), Problem(str(error), False)), error)
        except RlhfError as error:  # a bad config stays one, whatever on_error says
            return Answer(scores=nothing, stop=error)
        return self._sorted(scores, problems, None)

    def close(self) -> str | None:
        """Close the reward, and return what went wrong with that."""
        try:
            self._bounded(self._reward.close)
        except Exception as error:
            return f"{self._where}: close raised {type(error).__name__}: {error}"
        return None

    def _remembered(self, episodes: Sequence[Episode]) -> tuple[list[Score], dict[int, Problem]]:
        """Ask for the episodes that the cache does not hold, each once."""
        if self._cache is None:
            return self._asked(episodes), {}
        keys = [cache_key(episode) for episode in episodes]
        wanted = {key: episode for key, episode in zip(keys, episodes, strict=True) if key not in self._cache}
        known = {key: self._cache.recall(key) for key in keys if key not in wanted}
        problems: dict[str, Problem] = {}
        try:
            answers = self._asked(list(wanted.values())) if wanted else []
        except BadScores as bad:
            answers = bad.scores
            problems = {key: bad.problems[index] for index, key in enumerate(wanted) if index in bad.problems}
        fresh = dict(zip(wanted, answers, strict=True))
        self._cache.remember({key: score for key, score in fresh.items() if key not in problems})
        scores = [known[key] if key in known else fresh[key] for key in keys]
        return scores, {index: problems[key] for index, key in enumerate(keys) if key in problems}

    def _asked(self, episodes: Sequence[Episode]) -> list[Score]:
        try:
            raw = self._bounded(partial(self._reward.score, episodes))
        except RlhfError:
            raise
        except NoAnswer as late:
            raise RewardError(f"{self._where}: {late} - raise its deadline, or find out where it hangs") from None
        except Exception as error:
            raise RewardError(f"{self._where} raised {type(error).__name__}: {error}") from error
        return checked_answers(raw, episodes, self._where)

    def _bounded(self, call: Callable[[], T]) -> T:
        if self._worker is None or self._options.deadline is None:
            return call()
        return self._worker.run(call, self._options.deadline)

    def _sorted(self, scores: list[Score], problems: Mapping[int, Problem], cause: RewardError | None) -> Answer:
        options = self._options
        policies = {i: options.on_nan if p.is_number else options.on_error for i, p in problems.items()}
        fatal = min((index for index, policy in policies.items() if policy == "stop"), default=None)
        stop: RewardError | None = None
        if fatal is not None:
            stop = RewardError(problems[fatal].message)
            stop.__cause__ = None if cause is None else cause.__cause__  # the user's own exception
        elif options.normalise == "batch" and any(isinstance(score, list) for score in scores):
            stop = RewardError(f"{self._where} scores single tokens, which normalise: batch cannot shift - use running")
        return Answer(
            scores=scores,
            problems=problems,
            dropped=frozenset(index for index, policy in policies.items() if policy == "drop_episode"),
            neutral=frozenset(index for index, policy in policies.items() if policy == "neutral"),
            stop=stop,
            observations=self._reward.observations() if isinstance(self._reward, Observing) else {},
        )
