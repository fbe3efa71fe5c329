"""What becomes of each row on its way in: kept, cut, or dropped and counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeVar

from rlhf.data import cells
from rlhf.data.bad_rows import BadRow, OnBadRow, reason_of
from rlhf.data.reading.dataset_type import DatasetType, detect_type
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


def common_type(rows: Sequence[Row], on_bad_row: OnBadRow) -> tuple[DatasetType, Row]:
    """Return the type of all rows, and the row that shows it: the first, or with "drop" the first that has a type.

    Raises:
        DataError: no row has a known type; with "stop" also where rows are of several types.
    """
    if on_bad_row == "stop" or not rows:
        return detect_type(rows), rows[0]
    problems: list[DataError] = []
    for row in rows:
        try:
            return detect_type([row]), row
        except DataError as error:
            problems.append(error)
    raise problems[0]


def of_type(typical: Row, make: Callable[[Row], Outcome[T]]) -> Callable[[Row], Outcome[T]]:
    """Return `make`, which refuses a row of another type than `typical` has."""

    def checked(row: Row) -> Outcome[T]:
        detect_type([typical, row])
        return make(row)

    return checked


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
    counts |= {BAD: fates[BAD]} if fates[BAD] else {}
    notes = noted((row.location, note) for row, outcome in zip(rows, outcomes, strict=True) for note in outcome.notes)
    if not items:
        raise _nothing_left(rows, counts, notes)
    return Prepared(items, counts, notes)


def _nothing_left(rows: Sequence[Row], counts: dict[str, int], notes: Sequence[str]) -> DataError:
    drops = ", ".join(f"{name} {counts[name]}" for name in (*_DROPS, BAD) if name in counts)
    first = f" from {rows[0].location} on" if rows else ""
    why = f"; {'; '.join(notes)}" if notes else ""
    return DataError(
        f"0 rows left: all {len(rows)} rows{first} were dropped ({drops}) - see max_length and over_long{why}"
    )


def noted(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Count what happened to rows: one sentence for each kind, with the first location of each."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for location, note in pairs:
        first.setdefault(note, location)
        counts[note] += 1
    return [f"{counts[note]} {'row' if counts[note] == 1 else 'rows'} {note} (first: {first[note]})" for note in first]
