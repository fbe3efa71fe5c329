"""The cells of a row as text, messages or numbers; anything else is refused with file and line."""

import json
import math

from rlhf.data.bad_rows import BadRow
from rlhf.data.conversations.messages import checked_message, encodable, unexpected, without_nulls
from rlhf.data.records import Message, Row, Tools


def text_or_messages(row: Row, column: str) -> str | list[Message]:
    """Return a cell that holds text or a list of messages.

    Raises:
        DataError: the cell is null, a number, or anything else.
    """
    cell = row.values[column]
    if isinstance(cell, str):
        return encodable(cell, row.location, column)
    if isinstance(cell, list):
        return messages(row, column)
    raise unexpected(row.location, column, "text or a list of messages", cell)


def messages(row: Row, column: str) -> list[Message]:
    """Return a cell that holds a list of messages; see `checked_message`."""
    cell = row.values[column]
    if not isinstance(cell, list):
        raise unexpected(row.location, column, "a list of messages", cell)
    if not cell:
        raise BadRow(row.location, f"{column} holds no message")
    return [checked_message(message, row.location, f"{column}[{index}]") for index, message in enumerate(cell)]


def tools(row: Row) -> Tools:
    """Return the `tools` column, a list of JSON schemas or JSON text of one; None where a row has none.

    Raises:
        BadRow: it holds something else.
    """
    cell = row.values.get("tools")
    if isinstance(cell, str) and cell.strip():
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise unexpected(row.location, "tools", "a list of JSON schemas, or JSON text of one", cell) from None
    if not cell:
        return None
    if not isinstance(cell, list) or not all(isinstance(tool, dict) for tool in cell):
        raise unexpected(row.location, "tools", "a list of JSON schemas, or JSON text of one", cell)
    return list(without_nulls(cell))


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
    raise unexpected(row.location, column, "a finite number", cell)


def is_empty(value: str | list[Message]) -> bool:
    """Tell whether text is blank, or a list holds an empty message of a user or an assistant."""
    if isinstance(value, str):
        return not value.strip()
    return any(
        message["role"] in ("user", "assistant")
        and "tool_calls" not in message
        and not message["content"].strip()
        and not message.get("reasoning_content")
        for message in value
    )
