"""The kinds of rows (TRL's dataset types), recognised by their columns."""

from collections.abc import Sequence
from enum import Enum

from rlhf.data.reading.near_names import hint
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


def detect_type(rows: Sequence[Row]) -> DatasetType:
    """Return the type of the first row, which every row must have.

    Raises:
        DataError: there is no row, a row has no known columns, or rows are of several types.
    """
    if not rows:
        raise DataError("0 rows: an empty data set has no type")
    first = _type_of(rows[0])
    for row in rows:
        missing = [name for name in COLUMNS[first] if name not in row.values]
        if missing:
            raise missing_columns(row, COLUMNS[first], f" like {rows[0].location}")
        if _type_of(row) is not first:
            raise DataError(
                f"{row.location}: holds {_type_of(row)}, but {rows[0].location} holds {first}; found columns "
                f"{sorted(row.values)}"
            )
    return first


def missing_columns(row: Row, needed: Sequence[str], why: str = "") -> DataError:
    """Return the error that says which columns a row needs, which it has, and which were probably meant."""
    return DataError(
        f"{row.location}: needed columns {{{', '.join(needed)}}}{why}, found {sorted(map(str, row.values))}"
        f"{hint(needed, row.values)}"
    )


def _type_of(row: Row) -> DatasetType:
    for kind, columns in COLUMNS.items():
        if all(name in row.values for name in columns):
            return kind
    for columns in COLUMNS.values():
        if any(name in row.values for name in columns):
            raise missing_columns(row, columns)
    guess = hint(["prompt", "completion", "chosen", "rejected", "messages", "text"], row.values)
    raise DataError(
        f"{row.location}: needed columns {{prompt, completion}}, {{chosen, rejected}}, {{messages}}, {{prompt}} or "
        f"{{text}}, found {sorted(map(str, row.values))}{guess}"
    )
