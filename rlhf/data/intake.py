"""What becomes of each row on its way in: kept, cut, or dropped and counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from rlhf.data import cells
from rlhf.data.bad_rows import BadRow, OnBadRow, reason_of
from rlhf.data.reading.typed_rows import TypedRows
from rlhf.data.records import Message, Prepared, Row
from rlhf.errors import DataError

T = TypeVar("T")
OnEmpty = Literal["error", "skip"]
_DROPS = ("dropped_long", "dropped_empty", "dropped_equal")
SPLIT = "became one example an answer, because the chat template rewrites earlier turns"
PARTLY_LONG = "lost the answers that are too long"
TRAILING = "ended without an answer; the turns after the last answer were left out"
BAD = "dropped_bad"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of a row: a record ("kept", "cut"), or None and the name of the count for it."""

    item: T | None
    fate: str
    notes: tuple[str, ...] = ()
    """What else happened to it, in words that are the same for all rows to which the same happened."""


def refused_as_empty(fields: Sequence[str | list[Message]], row: Row, on_empty: OnEmpty) -> bool:
    """Tell whether a field is empty, which is an error unless `on_empty` is "skip"."""
    if not any(cells.is_empty(field) for field in fields):
        return False
    dropped_as_empty(row, on_empty)
    return True


def dropped_as_empty(row: Row, on_empty: OnEmpty) -> Outcome[T]:
    """Count an empty row, or raise DataError if `on_empty` is "error"."""
    if on_empty == "error":
        raise BadRow(row.location, "empty text, prompt, completion or message - fix it, or set on_empty: skip")
    return Outcome(None, "dropped_empty")


def tolerant(make: Callable[[Row], Outcome[T]], on_bad_row: OnBadRow) -> Callable[[Row], Outcome[T]]:
    """Return `make`, which with "drop" gives back a row that cannot be used as one that was dropped, and why."""

    def attempt(row: Row) -> Outcome[T]:
        try:
            return make(row)
        except DataError as error:
            return Outcome(None, BAD, (f"dropped: {reason_of(error, row.location)}",))

    return make if on_bad_row == "stop" else attempt


def with_trailing(outcome: Outcome[T], answers: Sequence[str | list[Message]]) -> Outcome[T]:
    """Note of a row that is kept that a conversation among `answers` ends with another turn than an assistant's."""
    ends = [field[-1]["role"] for field in answers if isinstance(field, list)]
    if outcome.item is None or all(role == "assistant" for role in ends):
        return outcome
    return replace(outcome, notes=(*outcome.notes, TRAILING))


def joined(parts: Sequence[Outcome[T]]) -> Outcome[list[T]]:
    """Return what became of a row of which several records were to be made."""
    items = [part.item for part in parts if part.item is not None]
    if not items:
        return Outcome(None, parts[0].fate)
    notes = (*([SPLIT] if len(parts) > 1 else []), *([PARTLY_LONG] if len(items) < len(parts) else []))
    return Outcome(items, "cut" if any(part.fate == "cut" for part in parts) else "kept", notes)


def flattened(many: Prepared[list[T]]) -> Prepared[T]:
    """Return the records of all rows in one list; the counts stay those of the rows."""
    return Prepared([item for items in many.items for item in items], many.counts, many.description, many.notes)


def alike(known: TypedRows, make: Callable[[Row], Outcome[T]], on_bad_row: OnBadRow) -> Prepared[T]:
    """Turn rows of one type into records; with "drop" a row of another type is dropped like any other bad row."""
    return prepared(known.rows, tolerant(lambda row: make(known.as_ours(row)), on_bad_row), known.description)


def prepared(rows: Iterable[Row], make: Callable[[Row], Outcome[T]], description: str = "") -> Prepared[T]:
    """Turn each row into a record as it comes, and count what became of the rows; no row stays in memory.

    Raises:
        DataError: no row is left.
    """
    items: list[T] = []
    fates: Counter[str] = Counter()
    happened: list[tuple[str, str]] = []
    first = ""
    for row in rows:
        outcome = make(row)
        first = first or f" from {row.location} on"
        fates[outcome.fate] += 1
        happened += [(row.location, note) for note in outcome.notes]
        if outcome.item is not None:
            items.append(outcome.item)
    num_read = sum(fates.values())
    counts = {"read": num_read, "kept": len(items), "cut": fates["cut"], **{name: fates[name] for name in _DROPS}}
    counts |= {BAD: fates[BAD]} if fates[BAD] else {}
    notes = noted(happened)
    if not items:
        drops = ", ".join(f"{name} {counts[name]}" for name in (*_DROPS, BAD) if name in counts)
        why = f"; {'; '.join(notes)}" if notes else ""
        raise DataError(
            f"0 rows left: all {num_read} rows{first} were dropped ({drops}) - see max_length and over_long{why}"
        )
    return Prepared(items, counts, description, notes)


def noted(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Count what happened to rows: one sentence for each kind, with the first location of each."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for location, note in pairs:
        first.setdefault(note, location)
        counts[note] += 1
    return [f"{counts[note]} {'row' if counts[note] == 1 else 'rows'} {note} (first: {first[note]})" for note in first]
