"""Dynamic batching: one thread scores, and requests that arrive while it is busy are scored together."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rlhf.rewards.checks import checked_scores
from rlhf.rewards.protocol import Episode
from rlhf.serving.served_reward import ScoreRequest, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    request: ScoreRequest
    scores: "Future[list[float]]" = field(default_factory=Future)

    @property
    def num_texts(self) -> int:
        return len(self.request.query)


class Batcher:
    """Scores requests in the order in which they arrive.

    Two threads make a model no faster, and user code may not be thread-safe, so there is one. It is a daemon: a reward
    that hangs does not keep the process alive.
    """

    def __init__(self, source: Source) -> None:
        """Start the thread."""
        self._source = source
        self._jobs: deque[_Job] = deque()
        self._arrived = threading.Condition()
        self._busy_since: float | None = None
        threading.Thread(target=self._work, name="batcher", daemon=True).start()

    @property
    def busy_seconds(self) -> float:
        """How long the current call of the reward has taken so far, 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def submit(self, request: ScoreRequest) -> "Future[list[float]]":
        """Queue a request; cancelling the future drops it, unless it is already being scored.

        Returns:
            A future of its scores, which may raise Refused or what the reward raised.
        """
        job = _Job(request=request)
        with self._arrived:
            self._jobs.append(job)
            self._arrived.notify()
        return job.scores

    def _work(self) -> None:
        while True:
            jobs = self._next()
            self._busy_since = time.monotonic()
            self._score([job for job in jobs if job.scores.set_running_or_notify_cancel()])
            self._busy_since = None

    def _next(self) -> list[_Job]:
        """Wait for a request; return it with those queued after it that fit into the same call."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._jobs)
            jobs = [self._jobs.popleft()]
            num_texts = jobs[0].num_texts
            while self._jobs and num_texts + self._jobs[0].num_texts <= self._source.joined_texts:
                jobs.append(self._jobs.popleft())
                num_texts += jobs[-1].num_texts
            return jobs

    def _score(self, jobs: Sequence[_Job]) -> None:
        read = [(job, episodes) for job in jobs if (episodes := self._read(job)) is not None]
        if len(read) > 1 and self._scored(read):
            return
        # One by one, so that a request that makes the reward fail does not fail the others.
        for job, episodes in read:
            try:
                job.scores.set_result(self._scores(episodes))
            except Exception as error:
                job.scores.set_exception(error)

    def _read(self, job: _Job) -> list[Episode] | None:
        try:
            return self._source.episodes(job.request)
        except Exception as error:
            job.scores.set_exception(error)
            return None

    def _scored(self, read: Sequence[tuple[_Job, list[Episode]]]) -> bool:
        try:
            scores = iter(self._scores([episode for _, episodes in read for episode in episodes]))
        except Exception:
            return False
        for job, episodes in read:
            job.scores.set_result([next(scores) for _ in episodes])
        return True

    def _scores(self, episodes: Sequence[Episode]) -> list[float]:
        return checked_scores(self._source.reward.score(episodes), len(episodes), self._source.name)
