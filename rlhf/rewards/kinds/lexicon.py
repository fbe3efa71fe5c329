"""A sentiment lexicon as a reward: VADER, whose words and rules were written for short social texts in English.

Source: Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text".
"""

from collections.abc import Sequence
from importlib.util import find_spec

from rlhf.errors import ConfigError
from rlhf.rewards.protocol import Episode


class LexiconReward:
    """The compound sentiment of a response, from -1 (negative) to 1 (positive)."""

    def __init__(self) -> None:
        """Load the lexicon.

        Raises:
            ConfigError: the package is not installed.
        """
        if find_spec("vaderSentiment") is None:
            raise ConfigError(
                "rewards: kind lexicon needs vaderSentiment - install it: pip install 'rlhf-ppo[lexicon]'"
            )
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self._analyser = SentimentIntensityAnalyzer()

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score per episode."""
        return [float(self._analyser.polarity_scores(episode.completion)["compound"]) for episode in episodes]

    def close(self) -> None:
        """Do nothing: nothing needs closing."""
