"""The records of the data room: a row as it was read, and what the stages train on, as token ids."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Message = dict[str, Any]
"""One turn of a conversation: at least `role` and `content`."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, before anything looked at its cells."""

    values: dict[str, Any]
    """Cells by column name, after `column_map`."""
    location: str
    """Where the row stands, as in `train.jsonl:12` or `train.parquet:row 12`, counted from 1."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence for the supervised loss."""

    input_ids: tuple[int, ...]
    """Prompt and response, EOS included."""
    loss_mask: tuple[bool, ...]
    """True on the tokens that are predicted; never on the first."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sequences of which the first was preferred."""

    chosen_ids: tuple[int, ...]
    """Prompt and preferred response."""
    rejected_ids: tuple[int, ...]
    """The same prompt and the other response."""
    margin: float
    """By how much the chosen score must lead, 0 without a `margin` column."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a response is sampled for."""

    text: str
    """The prompt as the model reads it; of a conversation, what the chat template made of it."""
    ids: tuple[int, ...]
    """Token ids, cut at the left where the policy for over-long prompts says so."""
    raw: str | list[Message]
    """The prompt as it stands in the row."""
    columns: dict[str, object]
    """Every other column of the row, for rewards that read them."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A response to a prompt that an episode may begin inside of."""

    prompt: Prompt
    """What it answers."""
    response_ids: tuple[int, ...]
    """What ends the response included."""


@dataclass(frozen=True, slots=True)
class Prepared(Generic[T]):
    """The records that were made of some rows, and what became of the others."""

    items: list[T]
    """In the order of the rows."""
    counts: dict[str, int]
    """read = kept + dropped_long + dropped_empty + dropped_equal; `cut` of the kept were cut at the left."""
