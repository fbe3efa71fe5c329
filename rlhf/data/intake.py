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


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of a row: a record ("kept", "cut"), or None and the name of the count for it."""

    item: T | None
    fate: str


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


def prepared(rows: Iterable[Row], make: Callable[[Row], Outcome[T]], description: str = "") -> Prepared[T]:
    """Turn each row into a record as it comes, and count what became of the rows; no row stays in memory.

    Raises:
        DataError: no row is left.
    """
    items: list[T] = []
    fates: Counter[str] = Counter()
    first = ""
    for row in rows:
        outcome = make(row)
        first = first or f" from {row.location} on"
        fates[outcome.fate] += 1
        if outcome.item is not None:
            items.append(outcome.item)
    num_read = sum(fates.values())
    counts = {"read": num_read, "kept": len(items), "cut": fates["cut"], **{name: fates[name] for name in _DROPS}}
    if not items:
        drops = ", ".join(f"{name} {counts[name]}" for name in _DROPS)
        raise DataError(
            f"0 rows left: all {num_read} rows{first} were dropped ({drops}) - see max_length and over_long"
        )
    return Prepared(items, counts, description)
