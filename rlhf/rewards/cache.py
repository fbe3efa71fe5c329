"""A cache of scores, for rewards that are expensive and score equal episodes equally."""

import hashlib
import json
from collections import OrderedDict

from rlhf.rewards.protocol import Episode, Score


class ScoreCache:
    """The most recently used scores, keyed by everything that a reward reads of an episode."""

    def __init__(self, size: int) -> None:
        """Remember up to `size` scores."""
        self._size = size
        self._scores: OrderedDict[str, Score] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._scores

    def recall(self, key: str) -> Score:
        """Return a cached score."""
        self._scores.move_to_end(key)
        return self._scores[key]

    def remember(self, scores: dict[str, Score]) -> None:
        """Add scores by key, and evict the least recently used."""
        self._scores.update(scores)
        while len(self._scores) > self._size:
            self._scores.popitem(last=False)


def cache_key(episode: Episode) -> str:
    """Return a key that is equal for two episodes exactly if no reward can tell them apart."""
    read = [episode.prompt, episode.completion, dict(episode.columns), episode.prompt_ids, episode.response_ids]
    return hashlib.sha256(json.dumps(read, sort_keys=True, default=repr).encode()).hexdigest()
