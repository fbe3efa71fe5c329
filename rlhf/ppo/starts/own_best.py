"""The policy's best responses so far in a run, which serve as demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.data.records import Demonstration, Prompt
from rlhf.errors import CheckpointError
from rlhf.training.processes import Processes
from rlhf.training.storage.schema import Form

FORM: Form = [{"prompt": int, "response_ids": [int], "score": float}]
"""Of a saved state."""


@dataclass(frozen=True, slots=True)
class _Best:
    response_ids: tuple[int, ...]
    score: float


class OwnBest:
    """The best response to each of the highest-scoring prompts; the same on every process."""

    def __init__(self, prompts: Sequence[Prompt], size: int) -> None:
        """Start empty; keep a response to at most `size` of the run's prompts."""
        self._prompts = prompts
        # A prompt holds columns, so it has no hash; its id is safe, since this object keeps the list alive.
        self._places = {id(prompt): place for place, prompt in enumerate(prompts)}
        self._size = size
        self._best: dict[int, _Best] = {}

    @property
    def demonstrations(self) -> list[Demonstration]:
        """Return the responses as demonstrations, the best first."""
        return [Demonstration(self._prompts[place], best.response_ids) for place, best in self._best.items()]

    def remember(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[tuple[int, ...]],
        scores: Sequence[float],
        processes: Processes,
    ) -> None:
        """Add the responses of all processes to some of the run's prompts; of equal scores the first one stays.

        Args:
            prompts: objects from the list that `__init__` got.
            responses: without what ended them; empty ones are skipped, since no episode can begin inside them.
            scores: the higher the better.
            processes: each adds its own, and all end up with the same.
        """
        places = [self._places[id(prompt)] for prompt in prompts]
        own = [each for each in zip(places, responses, scores, strict=True) if each[1]]
        for place, response, score in processes.gathered(own):
            if place not in self._best or score > self._best[place].score:
                self._best[place] = _Best(response, score)
        ranked = sorted(self._best.items(), key=lambda item: (-item[1].score, item[0]))
        self._best = dict(ranked[: self._size])

    def state(self) -> list[dict[str, Any]]:
        """Return what a checkpoint holds."""
        return [
            {"prompt": place, "response_ids": list(best.response_ids), "score": best.score}
            for place, best in self._best.items()
        ]

    def load(self, state: Sequence[dict[str, Any]]) -> None:
        """Restore a state saved by a run on the same prompts.

        Raises:
            CheckpointError: it names a prompt that this run does not have.
        """
        places = [each["prompt"] for each in state]
        if bad := [place for place in places if not 0 <= place < len(self._prompts)]:
            raise CheckpointError(f"own_best: names prompt {bad[0]}, but this run has {len(self._prompts)} prompts")
        self._best = {each["prompt"]: _Best(tuple(each["response_ids"]), each["score"]) for each in state}
