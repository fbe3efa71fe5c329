"""Conversations as they lie around, with `from` and `value` in each turn or otherwise, as messages of role and content.

Understood: ShareGPT's turns of `from` and `value`; turns of `input` and `output`, which are two messages each; one turn
where a list belongs; a mapping of lists (how `datasets` once kept a list of mappings); a list written as JSON text.
"""

import json
from collections.abc import Iterator
from typing import Any

from rlhf.data.records import Message, Row
from rlhf.errors import DataError

_SPEAKERS = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model", "function_call"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "observation", "function", "function_response"), "tool"),
}
"""What `from` says, and the role that it means."""
_MISNAMED_ROLES = {"human": "user", "gpt": "assistant"}
"""Names that no chat template has for a role."""
_SHAPES = ({"role", "content"}, {"from", "value"}, {"input", "output"})


def is_conversation(cell: object) -> bool:
    """Tell whether a cell is a list of turns in one of the shapes above."""
    return isinstance(cell, list) and bool(cell) and all(_is_turn(turn) for turn in cell)


def as_conversation(cell: object, row: Row, column: str) -> object:
    """Return a conversation as messages; a cell that is none comes back as it is.

    Raises:
        DataError: nobody knows who speaks in a turn.
    """
    turns = _listed(cell)
    if not is_conversation(turns) or turns == [] or not isinstance(turns, list):
        return cell
    return [
        message for index, turn in enumerate(turns) for message in _messages(turn, f"{row.location}: {column}[{index}]")
    ]


def _is_turn(turn: object) -> bool:
    return isinstance(turn, dict) and any(shape <= turn.keys() for shape in _SHAPES)


def _listed(cell: object) -> object:
    """Return a list of turns, whatever it is wrapped in."""
    if isinstance(cell, str) and cell.lstrip().startswith("[{"):
        return _from_json(cell)
    if not isinstance(cell, dict):
        return cell
    if _is_turn(cell) and all(isinstance(value, list) for value in cell.values()):
        return [dict(zip(cell, values, strict=False)) for values in zip(*cell.values(), strict=False)]
    return [cell] if _is_turn(cell) else cell


def _from_json(cell: str) -> object:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _messages(turn: dict[str, Any], where: str) -> Iterator[Message]:
    if {"input", "output"} <= turn.keys():
        yield {"role": "user", "content": turn["input"]}
        yield {"role": "assistant", "content": turn["output"]}
    elif turn.get("role") is not None or "from" not in turn:
        role = turn.get("role")
        yield {**turn, "role": _MISNAMED_ROLES.get(role, role) if isinstance(role, str) else role}
    else:
        yield _spoken(turn, where)


def _spoken(turn: dict[str, Any], where: str) -> Message:
    others = {key: cell for key, cell in turn.items() if key not in ("from", "value")}
    speaker, said = turn["from"], turn["value"]
    if not isinstance(speaker, str) or speaker.lower() not in _SPEAKERS:
        known = ", ".join(_SPEAKERS)
        raise DataError(f"{where}.from: nobody knows who {speaker!r} is; expected one of {known} - rename it")
    calls = _calls(said) if speaker.lower() == "function_call" else None
    if calls is not None:
        return {**others, "role": "assistant", "content": None, "tool_calls": calls}
    return {**others, "role": _SPEAKERS[speaker.lower()], "content": said}


def _calls(said: object) -> list[dict[str, Any]] | None:
    """Return the calls that a text holds as JSON, None when it is no such text."""
    try:
        found = json.loads(said) if isinstance(said, str) else said
    except (ValueError, RecursionError):
        return None
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) and "name" in call for call in calls):
        return None
    return [{"type": "function", "function": call} for call in calls]
