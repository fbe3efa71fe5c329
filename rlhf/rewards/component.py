"""One reward of a run with its options: its deadline, its cache, and what happens when it fails."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from rlhf.errors import RewardError, RlhfError
from rlhf.rewards.answers import checked_answers, total
from rlhf.rewards.cache import ScoreCache, cache_key
from rlhf.rewards.checks import BadScores, Problem
from rlhf.rewards.deadline import NoAnswer, Worker
from rlhf.rewards.early import EarlyAnswers
from rlhf.rewards.protocol import Episode, Observing, Reward, Score

T = TypeVar("T")

Policy = Literal["stop", "drop_episode", "neutral"]
"""Stop the run; drop the episode from the update; or give it the reward's mean score over the others."""


class Gate(NamedTuple):
    """A reward counts only where another reward exceeds a threshold."""

    reward: str
    """The name of the other reward."""
    above: float
    """The threshold for the other reward's number, before any scaling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What happens to the answers of a reward."""

    clip: float | None = None
    """Scores are clipped to [-clip, clip], after normalisation."""
    normalise: Literal["none", "running", "batch"] = "none"
    """Divide by the standard deviation of all scores so far; or bring each batch to mean 0 and standard deviation 1."""
    gate: Gate | None = None
    cache: int = 0
    """How many scores are cached."""
    on_error: Policy = "stop"
    """When the reward fails, or returns something that is not a number."""
    on_nan: Policy = "stop"
    """When a score is NaN or infinite."""
    deadline: float | None = None
    """Seconds that a call may take; None waits for ever."""
    early: bool = False
    """Ask about each episode as soon as it is there; equal episodes of a batch then share an answer."""


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
    """What was wrong, by episode."""
    dropped: frozenset[int] = frozenset()
    """Episodes dropped from the update."""
    neutral: frozenset[int] = frozenset()
    """Episodes that get the mean of the others."""
    stop: RlhfError | None = None
    """Why the run must stop."""
    observations: Mapping[str, list[float]] = field(default_factory=dict)
    """What the reward reported besides its scores."""

    @property
    def totals(self) -> list[float | None]:
        """The scores of whole responses."""
        return [total(score) for score in self.scores]

    def without_forced(self, num_forced: Sequence[int]) -> "Answer":
        """Return the same with score 0 for the first `num_forced` [N] tokens: the policy did not choose them."""
        scores: list[Score] = [
            [0.0] * num + score[num:] if isinstance(score, list) else score
            for score, num in zip(self.scores, num_forced, strict=True)
        ]
        return replace(self, scores=scores)


class GuardedReward:
    """Asks one reward, and returns its errors instead of raising them: the processes decide together."""

    def __init__(self, component: Component) -> None:
        """Take the reward."""
        self._reward, _, self.name, self._options = component
        self._where = f"reward {self.name!r}"
        self._cache = ScoreCache(self._options.cache) if self._options.cache else None
        self._worker = None if self._options.deadline is None else Worker(self._where)
        self._early = EarlyAnswers(self._asked, f"early {self._where}") if self._options.early else None

    @property
    def asks_early(self) -> bool:
        """Whether `begin` does something."""
        return self._early is not None

    def begin(self, episode: Episode) -> None:
        """Ask about one episode of the next `answer` already now, if the reward's options say so; nobody waits."""
        if self._early is not None and not (self._cache is not None and cache_key(episode) in self._cache):
            self._early.begin(episode)

    def answer(self, episodes: Sequence[Episode]) -> Answer:
        """Return the reward's scores, and what to do where a score is not usable."""
        nothing: list[Score] = [None] * len(episodes)
        try:
            scores, problems = self._remembered(episodes)
        except BadScores as bad:
            return self._sorted(bad.scores, bad.problems, bad)
        except RewardError as error:
            return self._sorted(nothing, dict.fromkeys(range(len(episodes)), Problem(str(error), False)), error)
        except RlhfError as error:  # a bad config stops the run, whatever on_error says
            return Answer(scores=nothing, stop=error)
        return self._sorted(scores, problems, None)

    def close(self) -> str | None:
        """Close the reward, and return what went wrong, if anything did."""
        try:
            self._bounded(self._reward.close)
        except Exception as error:
            return f"{self._where}: close raised {type(error).__name__}: {error}"
        return None

    def _remembered(self, episodes: Sequence[Episode]) -> tuple[list[Score], dict[int, Problem]]:
        """Ask about the episodes that are not in the cache and were not asked early, each once."""
        if self._cache is None and self._early is None:
            return self._asked(episodes), {}
        keys = [cache_key(episode) for episode in episodes]
        known = {} if self._early is None else self._early.take()
        if self._cache is not None:
            known |= {key: self._cache.recall(key) for key in keys if key in self._cache}
        wanted = {key: episode for key, episode in zip(keys, episodes, strict=True) if key not in known}
        problems: dict[str, Problem] = {}
        try:
            answers = self._asked(list(wanted.values())) if wanted else []
        except BadScores as bad:
            answers = bad.scores
            problems = {key: bad.problems[index] for index, key in enumerate(wanted) if index in bad.problems}
        fresh = dict(zip(wanted, answers, strict=True))
        if self._cache is not None:
            self._cache.remember({key: score for key, score in (known | fresh).items() if key not in problems})
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
