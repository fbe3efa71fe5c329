"""Answers of a reward about single episodes, asked in a thread while the others are still being drawn."""

import threading
from collections.abc import Callable, Sequence

from rlhf.errors import RlhfError
from rlhf.rewards.cache import cache_key
from rlhf.rewards.checks import BadScores
from rlhf.rewards.protocol import Episode, Score


class EarlyAnswers:
    """Asks about episodes as they come, all that have come since the last call in one; two calls never run at once.

    What fails is forgotten: whoever needs the answer asks again, and meets the error.
    """

    def __init__(self, ask: Callable[[Sequence[Episode]], list[Score]], name: str) -> None:
        """Take what asks the reward, and the name of the thread."""
        self._ask = ask
        self._name = name
        self._lock = threading.Lock()
        self._waiting: list[Episode] = []
        self._found: dict[str, Score] = {}
        self._thread: threading.Thread | None = None

    def begin(self, episode: Episode) -> None:
        """Ask about an episode as soon as the call before has returned; nobody waits."""
        with self._lock:
            self._waiting.append(episode)
            if self._thread is None:
                # A daemon: the process may end while a call hangs.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    def take(self) -> dict[str, Score]:
        """Return the answers by `cache_key`, and forget them; waits for the call that runs, and begins no other."""
        with self._lock:
            self._waiting.clear()
            thread = self._thread
        if thread is not None:
            thread.join()
        found, self._found = self._found, {}
        return found

    def _work(self) -> None:
        while True:
            with self._lock:
                episodes, self._waiting = self._waiting, []
                if not episodes:
                    self._thread = None
                    return
            self._found.update(self._answers(episodes))

    def _answers(self, episodes: Sequence[Episode]) -> dict[str, Score]:
        try:
            scores, bad = self._ask(episodes), frozenset[int]()
        except BadScores as some:
            scores, bad = some.scores, frozenset(some.problems)
        except RlhfError:
            return {}
        keyed = zip(map(cache_key, episodes), scores, strict=True)
        return {key: score for index, (key, score) in enumerate(keyed) if index not in bad}
