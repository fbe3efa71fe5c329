"""The cells of a row as text, messages or numbers; anything else is refused with file and line."""

import math

from rlhf.data.records import Message, Row
from rlhf.errors import DataError


def text_or_messages(row: Row, column: str) -> str | list[Message]:
    """Return a cell that holds text or a list of messages.

    Raises:
        DataError: the cell is null, a number, or anything else.
    """
    cell = row.values[column]
    if isinstance(cell, str):
        return _encodable(cell, row, column)
    if isinstance(cell, list):
        return messages(row, column)
    raise _unexpected(row, column, "text or a list of messages", cell)


def messages(row: Row, column: str) -> list[Message]:
    """Return a cell that holds a list of messages, each with a role and its content as text."""
    cell = row.values[column]
    if not isinstance(cell, list):
        raise _unexpected(row, column, "a list of messages", cell)
    if not cell:
        raise DataError(f"{row.location}: {column} holds no message")
    return [_message(message, row, f"{column}[{index}]") for index, message in enumerate(cell)]


def margin(row: Row) -> float:
    """Return the `margin` column as a finite number, 0 where the row has none."""
    return number(row, "margin") if "margin" in row.values else 0.0


def number(row: Row, column: str) -> float:
    """Return a cell as a finite number.

    Raises:
        DataError: the cell is null, text that is no number, or anything else.
    """
    cell = row.values[column]
    if isinstance(cell, (int, float, str)) and not isinstance(cell, bool):
        try:
            value = float(cell)  # a CSV file writes numbers as text
        except (ValueError, OverflowError):
            value = math.nan
        if math.isfinite(value):
            return value
    raise _unexpected(row, column, "a finite number", cell)


def is_empty(value: str | list[Message]) -> bool:
    """Tell whether text is blank, or a list holds an empty message of a user or an assistant."""
    if isinstance(value, str):
        return not value.strip()
    return any(message["role"] in ("user", "assistant") and not message["content"].strip() for message in value)


def _message(value: object, row: Row, column: str) -> Message:
    if not isinstance(value, dict):
        raise _unexpected(row, column, "an object with role and content", value)
    for key in ("role", "content"):
        if not isinstance(value.get(key), str):
            raise _unexpected(row, f"{column}.{key}", "text", value.get(key))
        _encodable(value[key], row, f"{column}.{key}")
    # `datasets` fills in None for keys that only other messages have.
    return {key: cell for key, cell in value.items() if cell is not None}


def _encodable(value: str, row: Row, column: str) -> str:
    """Refuse half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{row.location}: {column} has a lone surrogate (U+{ord(value[error.start]):04X}) at character "
            f"{error.start} - the text was cut within a character"
        ) from None
    return value


def _unexpected(row: Row, column: str, expected: str, cell: object) -> DataError:
    found = "null" if cell is None else f"{type(cell).__name__} {str(cell)[:40]!r}"
    return DataError(f"{row.location}: {column} must be {expected}, found {found}")
