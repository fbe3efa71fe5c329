"""What a reward gets, and what it returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

Message = dict[str, object]

Score = float | list[float] | None
"""A number for a whole response; one number per response token; or None where the reward does not apply (as in TRL)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One prompt and the response to it, as text and as tokens."""

    prompt: str | list[Message]
    """As the data has it, before the chat template: text, or messages with `role` and `content`."""
    completion: str
    """The whole response as text, without special tokens."""
    columns: Mapping[str, object]
    """The other columns of the prompt's row."""
    prompt_ids: tuple[int, ...]
    """What the policy read, without padding."""
    response_ids: tuple[int, ...]
    """The whole response: the forced tokens of a reset, then what the policy emitted, the EOS included; no padding."""


class Reward(Protocol):
    """Scores responses."""

    def score(self, episodes: Sequence[Episode]) -> Sequence[Score]:
        """Return one score per episode, in order.

        Raises:
            RewardError: the reward failed or returned something else. `checks.BadScores` names those episodes and
                holds the scores of the others; any other `RewardError` concerns all of them.
        """
        ...

    def close(self) -> None:
        """Release what the reward holds; called once, after the last score."""
        ...


@runtime_checkable
class Modelled(Protocol):
    """A reward that asks models in this process, which may then be held in shards."""

    @property
    def models(self) -> list[nn.Module]:
        """The models."""
        ...


@runtime_checkable
class Observing(Protocol):
    """A reward that reports more about the episodes of its last call than their scores."""

    def observations(self) -> dict[str, list[float]]:
        """Return numbers by name, and forget them; their mean over all episodes is logged."""
        ...
