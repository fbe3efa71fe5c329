"""Preferences that hold whole conversations: what both begin with is their prompt, whether it has a column or not."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from rlhf.data.records import Message, Row
from rlhf.errors import DataError

_KEYS = ("role", "content")


def with_prompt_apart(row: Row) -> Row:
    """Return a preference with prompt, chosen and rejected apart, where the answers are conversations.

    Four ways of writing the same pair become one: answers alone behind a prompt of messages (which stay as they are);
    answers alone behind a prompt of text (which becomes a user's message); whole conversations, and whole conversations
    beside a prompt that repeats how they begin.

    Raises:
        DataError: the conversations do not hold the prompt.
    """
    talks: list[list[Message]] = [row.values["chosen"], row.values["rejected"]]
    if not all(_is_talk(talk) for talk in talks):
        return row
    prompt = row.values.get("prompt")
    if isinstance(prompt, list):
        repeats = _is_talk(prompt) and all(_said(talk[: len(prompt)]) == _said(prompt) for talk in talks)
        return _cut(row, prompt, len(prompt)) if repeats else row
    if all(talk[0]["role"] == "assistant" for talk in talks):
        return _cut(row, [{"role": "user", "content": prompt}], 0) if isinstance(prompt, str) else row
    shared = _shared(*talks)
    if isinstance(prompt, str):
        _check_holds(row, prompt, shared)
    return _cut(row, shared, len(shared)) if shared else row


def _is_talk(cell: Any) -> bool:
    return isinstance(cell, list) and bool(cell) and all(isinstance(each, dict) and "role" in each for each in cell)


def _shared(chosen: list[Message], rejected: list[Message]) -> list[Message]:
    """Return what both begin with, up to a message that is to be answered; each keeps an answer at least."""
    pairs = zip(chosen[:-1], rejected[:-1], strict=False)
    shared = [one for one, _ in takewhile(lambda pair: _said(pair[:1]) == _said(pair[1:]), pairs)]
    while shared and shared[-1]["role"] == "assistant":
        shared.pop()
    return shared


def _check_holds(row: Row, prompt: str, shared: Sequence[Message]) -> None:
    asked = [str(message.get("content")).strip() for message in shared if message["role"] == "user"]
    if prompt.strip() not in asked:
        raise DataError(
            f"{row.location}: chosen and rejected are conversations that do not both begin with prompt; found prompt "
            f"{prompt[:40]!r}, and {[text[:40] for text in asked]} at the beginning of both - mend the row, or put "
            "the column aside with column_map: {unread: prompt}"
        )


def _cut(row: Row, prompt: list[Message], num_shared: int) -> Row:
    answers = {name: row.values[name][num_shared:] for name in ("chosen", "rejected")}
    if not all(answers.values()):
        return row
    return Row({**row.values, "prompt": prompt, **answers}, row.location, row.is_mapped)


def _said(messages: Sequence[Message]) -> list[tuple[object, ...]]:
    return [tuple(message.get(key) for key in _KEYS) for message in messages]
