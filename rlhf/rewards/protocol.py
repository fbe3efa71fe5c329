"""What a reward is given, and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Message = dict[str, object]


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
    """Scores whole responses."""

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one finite number an episode, in order.

        Raises:
            RewardError: the reward failed, or gave something else.
        """
        ...

    def close(self) -> None:
        """Give back what the reward holds; called once, after the last score."""
        ...
