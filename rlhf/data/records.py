"""The data records: a row as it was read, and the token ids that the stages train on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rlhf.errors import DataError

T = TypeVar("T")

Message = dict[str, Any]
"""One turn of a conversation: at least `role` and `content`."""

Tools = list[Any] | None
"""The tools that an assistant may call, as JSON schemas; None where a conversation has none."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, with its cells unchecked."""

    values: dict[str, Any]
    """Cells by column name, after `column_map`."""
    location: str
    """Where the row is, as in `train.jsonl:12` or `train.parquet:row 12`, counted from 1."""
    is_mapped: bool = False
    """Whether `column_map` said which columns are ours: nothing is guessed then."""
    fault: DataError | None = None
    """Why it could not be read; its cells then mean nothing."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sequence for the supervised loss."""

    input_ids: Sequence[int]
    """Prompt and response, EOS included."""
    loss_mask: tuple[bool, ...]
    """True on the tokens that are predicted; never on the first."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sequences, the first of which was preferred."""

    chosen_ids: Sequence[int]
    """Prompt and preferred response."""
    rejected_ids: Sequence[int]
    """The same prompt and the other response."""
    margin: float
    """How far the chosen score must lead, 0 without a `margin` column."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt to sample responses to."""

    text: str
    """The prompt as the model reads it; for a conversation, what the chat template rendered."""
    ids: tuple[int, ...]
    """Token ids, cut on the left if `over_long` says so."""
    raw: str | list[Message]
    """The prompt as it is in the row, with system messages as the section's `system` says."""
    columns: dict[str, object]
    """Every other column of the row, for rewards that read them."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and a response to it; an episode may begin inside the response."""

    prompt: Prompt
    """The prompt that it answers."""
    response_ids: tuple[int, ...]
    """Including what ends the response."""


@dataclass(frozen=True, slots=True)
class Prepared(Generic[T]):
    """The records made from rows, and what became of all rows."""

    items: list[T]
    """In the order of the rows."""
    counts: dict[str, int]
    """read = kept + dropped_long + dropped_empty + dropped_equal; `cut` of the kept were cut on the left."""
    description: str = ""
    """What the rows held, as it is printed."""
    notes: list[str] = field(default_factory=list)
    """What else happened to rows, a sentence each: how many, what, and where the first one is."""

    def summary(self) -> str:
        """Return the counts in a line, and a line for each note."""
        counts = ", ".join(f"{name} {count}" for name, count in self.counts.items() if count or name == "kept")
        return "\n  ".join([counts, *self.notes])
