"""One message of a conversation as people write it: content as text or parts, and calls of tools."""

import json
import re
from collections.abc import Sequence
from typing import Any

from rlhf.data.bad_rows import BadRow
from rlhf.data.records import Message

_TEXT_PARTS = ("text", "input_text", "output_text")
"""What OpenAI's two formats call a part that holds text."""


def checked_message(value: object, location: str, column: str) -> Message:
    """Return a message with its content as text, and the arguments of its tool calls as mappings.

    `datasets` fills in null for keys that only other messages have, so those are left out. An assistant's message that
    calls tools may have no content.

    Raises:
        BadRow: role or content is missing or of another kind.
    """
    if not isinstance(value, dict):
        raise unexpected(location, column, "an object with role and content", value)
    message = {key: cell for key, cell in value.items() if cell is not None}
    if not isinstance(message.get("role"), str):
        raise unexpected(location, f"{column}.role", "text", message.get("role"))
    encodable(message["role"], location, f"{column}.role")
    if message.get("tool_calls"):
        message["tool_calls"] = _calls(message["tool_calls"], location, f"{column}.tool_calls")
    else:
        message.pop("tool_calls", None)
    if "content" in message or "tool_calls" not in message:
        message["content"] = _text(message.get("content"), location, f"{column}.content")
    return message


def with_continuation(prompt: Sequence[Message], answer: Sequence[Message]) -> list[Message]:
    """Return a prompt and an answer to it as one conversation.

    Where the prompt ends with an assistant's message, the answer goes on with that message.
    """
    if not goes_on(prompt, answer):
        return [*prompt, *answer]
    content = str(prompt[-1].get("content", "")) + str(answer[0].get("content", ""))
    return [*prompt[:-1], {**prompt[-1], **answer[0], "content": content}, *answer[1:]]


def goes_on(prompt: Sequence[Message], answer: Sequence[Message]) -> bool:
    """Whether the first message of an answer continues the last one of a prompt."""
    return bool(prompt) and prompt[-1]["role"] == "assistant" == answer[0]["role"]


def encodable(value: str, location: str, column: str) -> str:
    """Refuse half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow(
            location,
            f"{column} has a lone surrogate (U+{ord(value[error.start]):04X}) at character {error.start} - the text "
            "was cut within a character",
            "a lone surrogate: text that was cut within a character",
        ) from None
    return value


def unexpected(location: str, column: str, expected: str, cell: object) -> BadRow:
    """Return the error that says what a cell must be, and what was found."""
    found = "null" if cell is None else f"{type(cell).__name__} {str(cell)[:40]!r}"
    place = re.sub(r"\[\d+\]", "[]", column)
    return BadRow(location, f"{column} must be {expected}, found {found}", f"{place} must be {expected}")


def without_nulls(value: Any) -> Any:
    """Return a value without the keys that hold null, which `datasets` fills in where another row has the key."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _text(content: object, location: str, column: str) -> str:
    if isinstance(content, str):
        return encodable(content, location, column)
    if not isinstance(content, list) or not content:
        raise unexpected(location, column, "text", content)
    return "".join(_part(part, location, f"{column}[{number}]") for number, part in enumerate(content))


def _part(part: object, location: str, column: str) -> str:
    if not isinstance(part, dict):
        raise unexpected(location, column, "an object with type and text", part)
    kind = part.get("type")
    if kind not in _TEXT_PARTS:
        raise BadRow(
            location,
            f"{column} is of type {kind!r}; models here read text alone - leave it out, or set on_bad_row: drop",
            f"content holds a part of type {kind!r}, not text",
        )
    if not isinstance(part.get("text"), str):
        raise unexpected(location, f"{column}.text", "text", part.get("text"))
    return encodable(part["text"], location, f"{column}.text")


def _calls(calls: object, location: str, column: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise unexpected(location, column, "a list of calls", calls)
    return [_call(call, location, f"{column}[{number}]") for number, call in enumerate(calls)]


def _call(call: object, location: str, column: str) -> dict[str, Any]:
    """Return a call in the form that templates read, {"type": "function", "function": {...}}."""
    if not isinstance(call, dict):
        raise unexpected(location, column, "an object with a function", call)
    inner = call.get("function", call)
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise unexpected(location, f"{column}.function", "an object with name and arguments", inner)
    arguments = _arguments(inner.get("arguments"), location, f"{column}.function.arguments")
    others = {key: cell for key, cell in call.items() if key in ("id", "type") and cell is not None}
    return {"type": "function", **others, "function": {"name": inner["name"], "arguments": arguments}}


def _arguments(given: object, location: str, column: str) -> dict[str, Any]:
    """Return arguments as a mapping: OpenAI's API gives JSON text, which a template would quote once more."""
    if isinstance(given, dict):
        return dict(without_nulls(given))
    if given is None or given == "":
        return {}
    try:
        read = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        read = given
    if not isinstance(read, dict):
        raise unexpected(location, column, "an object, or JSON text of one", given)
    return read
