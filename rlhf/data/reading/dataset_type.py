"""The kinds of rows (TRL's dataset types), recognised by their columns."""

from collections.abc import Collection, Sequence
from enum import Enum

from rlhf.data.reading.near_names import guesses, written
from rlhf.data.records import Row
from rlhf.errors import DataError


class DatasetType(Enum):
    """What a row holds; messages print the value. Any text may be a list of messages instead."""

    TEXT = "text"
    MESSAGES = "messages"
    PROMPT = "prompt"
    PROMPT_COMPLETION = "prompt and completion"
    PREFERENCE = "preference (chosen and rejected)"

    def __str__(self) -> str:
        """Return what is printed."""
        return self.value


COLUMNS = {
    DatasetType.PREFERENCE: ("chosen", "rejected"),
    DatasetType.MESSAGES: ("messages",),
    DatasetType.PROMPT_COMPLETION: ("prompt", "completion"),
    DatasetType.PROMPT: ("prompt",),
    DatasetType.TEXT: ("text",),
}
"""The columns of each type; a row's type is the first one whose columns it has."""


def type_of(row: Row, wanted: Collection[DatasetType] = COLUMNS.keys()) -> DatasetType | None:
    """Return the first type among those wanted whose columns a row has."""
    return next((kind for kind in COLUMNS if kind in wanted and _has(row, COLUMNS[kind])), None)


def untyped(row: Row, wanted: Collection[DatasetType]) -> DataError:
    """Return the refusal of a row that is of no wanted type: what is needed, what was found and probably meant."""
    kinds = list(wanted)
    if type_of(row) is None:  # who has half of a type's columns probably means that type
        begun = [kind for kind in COLUMNS if kind in wanted and any(name in row.values for name in COLUMNS[kind])]
        kinds = begun[:1] or kinds
    others = ", ".join(f"or {_as_set(COLUMNS[kind])}" for kind in kinds[1:])
    # Who reads preferences as one type among others needs their prompt too, which no hint can promise.
    sure = [kind for kind in kinds if kind is not DatasetType.PREFERENCE or len(wanted) == 1]
    return missing_columns(row, COLUMNS[kinds[0]], f" ({others})" if others else "", hint_for(row, sure))


def missing_columns(row: Row, needed: Sequence[str], why: str = "", hint: str = "") -> DataError:
    """Return the error that says which columns a row needs and which it has."""
    found = sorted(map(str, row.values))
    return DataError(f"{row.location}: needed columns {_as_set(needed)}{why}, found {found}{hint}")


def hint_for(row: Row, kinds: Sequence[DatasetType]) -> str:
    """Return a `column_map` that makes a row one of these types, as a question; "" when no such map is known.

    Only columns whose cells could be what is missing are suggested, and only maps that leave nothing missing.
    """
    return next(filter(None, (_hint_of(row, kind) for kind in kinds)), "")


def _hint_of(row: Row, kind: DatasetType) -> str:
    columns = COLUMNS[kind]
    usable = [name for name, cell in row.values.items() if name in columns or _fits(cell, kind)]
    guessed = guesses(columns, usable)
    meant = [guessed.get(name, name) for name in columns]
    if not guessed or any(name not in row.values for name in meant):
        return ""
    # Text and messages do not go together.
    return written(guessed) if len({type(row.values[name]) for name in meant}) == 1 else ""


def _has(row: Row, columns: Sequence[str]) -> bool:
    return all(name in row.values for name in columns)


def _fits(cell: object, kind: DatasetType) -> bool:
    is_list = isinstance(cell, list) and bool(cell) and all(isinstance(each, dict) for each in cell)
    return is_list or (isinstance(cell, str) and kind is not DatasetType.MESSAGES)


def _as_set(columns: Sequence[str]) -> str:
    return f"{{{', '.join(columns)}}}"
