"""Small ready-made rules: the length of a response, how much it repeats itself, and whether it matches a pattern."""

from collections.abc import Sequence
from typing import Literal

import regex

from rlhf.errors import ConfigError, RewardError
from rlhf.printable import quoted
from rlhf.rewards.protocol import Episode

Unit = Literal["tokens", "words", "characters"]

SECONDS_PER_TEXT = 5.0
"""How long a pattern may run on one response: `regex` can stop it, unlike `re`."""


class LengthReward:
    """0 for a response of allowed length, else minus the distance to the allowed range."""

    def __init__(self, *, unit: Unit, at_least: int, at_most: int | None) -> None:
        """Take the allowed range, in tokens (the EOS is one), words or characters."""
        self._unit = unit
        self._at_least = at_least
        self._at_most = at_most

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode, at most 0."""
        return [float(-self._distance(len(units(episode, self._unit)))) for episode in episodes]

    def close(self) -> None:
        """Do nothing: nothing needs closing."""

    def _distance(self, length: int) -> int:
        too_long = 0 if self._at_most is None else length - self._at_most
        return max(self._at_least - length, too_long, 0)


class RepetitionReward:
    """Minus the share of a response's n-grams that occurred in it before: 0 without repetition, near -1 for a loop."""

    def __init__(self, *, unit: Unit, ngram: int) -> None:
        """Take n, and what an n-gram is made of."""
        self._unit = unit
        self._ngram = ngram

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode; 0 for one that is shorter than n."""
        return [-repeated_share(units(episode, self._unit), self._ngram) for episode in episodes]

    def close(self) -> None:
        """Do nothing: nothing needs closing."""


class RegexReward:
    """One score for responses in which a pattern is found, another for the rest."""

    def __init__(self, pattern: str, *, found: float, missing: float) -> None:
        """Compile the pattern, in the syntax of the package `regex` (that of `re`, and more).

        Raises:
            ConfigError: the pattern is not valid.
        """
        try:
            self._pattern = regex.compile(pattern)
        except regex.error as error:
            raise ConfigError(f"rewards: pattern {pattern!r} is no regular expression: {error}") from None
        self._found = found
        self._missing = missing

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode.

        Raises:
            RewardError: the pattern takes too long on a response.
        """
        return [
            self._found if self._is_found(index, episode) else self._missing for index, episode in enumerate(episodes)
        ]

    def close(self) -> None:
        """Do nothing: nothing needs closing."""

    def _is_found(self, index: int, episode: Episode) -> bool:
        try:
            # Without the GIL, so that a deadline holds as well.
            return self._pattern.search(episode.completion, concurrent=True, timeout=SECONDS_PER_TEXT) is not None
        except TimeoutError:
            raise RewardError(
                f"pattern {self._pattern.pattern!r} takes more than {SECONDS_PER_TEXT:g} s on response {index}, "
                f"{quoted(episode.completion)} - nested repetitions such as (a+)+ cause this; write it without them"
            ) from None


def units(episode: Episode, unit: Unit) -> Sequence[object]:
    """Return the tokens, words or characters of a response."""
    if unit == "tokens":
        return episode.response_ids
    return episode.completion.split() if unit == "words" else episode.completion


def repeated_share(items: Sequence[object], ngram: int) -> float:
    """Return the share of the n-grams of `items` that are equal to an earlier one."""
    ngrams = [tuple(items[start : start + ngram]) for start in range(len(items) - ngram + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0
