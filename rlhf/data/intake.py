"""What becomes of each row on its way in: kept, cut, or dropped and counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from rlhf.data import cells
from rlhf.data.records import Message, Prepared, Row
from rlhf.errors import DataError

T = TypeVar("T")
OnEmpty = Literal["error", "skip"]
_DROPS = ("dropped_long", "dropped_empty", "dropped_equal")
SPLIT = "became one example an answer, because the chat template rewrites earlier turns"
PARTLY_LONG = "lost the answers that are too long"


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
        raise DataError(f"{row.location}: empty text, prompt, completion or message - fix it, or set on_empty: skip")
    return Outcome(None, "dropped_empty")


def joined(parts: Sequence[Outcome[T]]) -> Outcome[list[T]]:
    """Return what became of a row of which several records were to be made."""
    items = [part.item for part in parts if part.item is not None]
    if not items:
        return Outcome(None, parts[0].fate)
    notes = (*([SPLIT] if len(parts) > 1 else []), *([PARTLY_LONG] if len(items) < len(parts) else []))
    return Outcome(items, "cut" if any(part.fate == "cut" for part in parts) else "kept", notes)


def flattened(many: Prepared[list[T]]) -> Prepared[T]:
    """Return the records of all rows in one list; the counts stay those of the rows."""
    return Prepared([item for items in many.items for item in items], many.counts, many.notes)


def prepared(rows: Sequence[Row], make: Callable[[Row], Outcome[T]]) -> Prepared[T]:
    """Turn each row into a record, and count what became of the rows.

    Raises:
        DataError: no row is left.
    """
    outcomes = [make(row) for row in rows]
    items = [outcome.item for outcome in outcomes if outcome.item is not None]
    fates = Counter(outcome.fate for outcome in outcomes)
    counts = {"read": len(rows), "kept": len(items), "cut": fates["cut"], **{name: fates[name] for name in _DROPS}}
    if not items:
        drops = ", ".join(f"{name} {counts[name]}" for name in _DROPS)
        first = f" from {rows[0].location} on" if rows else ""
        raise DataError(
            f"0 rows left: all {len(rows)} rows{first} were dropped ({drops}) - see max_length and over_long"
        )
    notes = noted((row.location, note) for row, outcome in zip(rows, outcomes, strict=True) for note in outcome.notes)
    return Prepared(items, counts, notes)


def noted(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Count what happened to rows: one sentence for each kind, with the first location of each."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for location, note in pairs:
        first.setdefault(note, location)
        counts[note] += 1
    return [f"{counts[note]} {'row' if counts[note] == 1 else 'rows'} {note} (first: {first[note]})" for note in first]
