"""Rows of ShareGPT, Alpaca and ms-swift, in our columns: recognised by their columns, converted one by one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rlhf.data.reading.turns import as_conversation, is_conversation
from rlhf.data.records import Message, Row

Values = dict[str, Any]


def converted(row: Row) -> tuple[Row, str | None]:
    """Return a row in our columns, and what it was: None for one that is in no format known here.

    Raises:
        DataError: nobody knows who speaks in a turn.
    """
    for name, convert in _FORMATS.items():
        values = convert(row)
        if values is not None:
            return replace(row, values=values), name
    return row, None


def _from_sharegpt(row: Row) -> Values | None:
    """ShareGPT: `conversations` becomes messages, or the prompt before chosen and rejected; `system` goes in front."""
    for column in ("conversations", "conversation"):
        turns = as_conversation(row.values.get(column), row, column)
        if is_conversation(turns):
            others = _without(row.values, column, "system")
            ours = "prompt" if {"chosen", "rejected"} <= row.values.keys() else "messages"
            return {**others, ours: _after_system(row.values.get("system"), turns)}  # type: ignore[arg-type]
    return None


def _from_alpaca(row: Row) -> Values | None:
    """Alpaca: instruction and input become the prompt, output the completion; chosen and rejected stay."""
    instruction = row.values.get("instruction")
    if not isinstance(instruction, str) or "system" in row.values or "history" in row.values:
        return None
    return _answered(row.values, _question(row.values))


def _from_alpaca_with_history(row: Row) -> Values | None:
    """The same with `system` or `history`, pairs of a question and an answer: these make it a conversation."""
    values, history = row.values, row.values.get("history") or []
    is_history = isinstance(history, list) and all(isinstance(pair, list | tuple) for pair in history)
    if not isinstance(values.get("instruction"), str) or not is_history:
        return None
    earlier = [
        {"role": role, "content": said}
        for pair in history
        for role, said in zip(("user", "assistant"), pair, strict=False)
    ]
    prompt = _after_system(values.get("system"), [*earlier, {"role": "user", "content": _question(values)}])
    return _answered(values, prompt, lambda said: [{"role": "assistant", "content": said}])


def _from_swift(row: Row) -> Values | None:
    """ms-swift: Alpaca under the names query and response; rejected_response makes it a preference."""
    names = {"query": "instruction", "response": "output"}
    if "rejected_response" in row.values:
        names |= {"response": "chosen", "rejected_response": "rejected"}
    if not names.keys() <= row.values.keys() or "instruction" in row.values or "output" in row.values:
        return None
    renamed = replace(row, values={names.get(name, name): cell for name, cell in row.values.items()})
    return _from_alpaca(renamed) or _from_alpaca_with_history(renamed)


def _answered(values: Values, prompt: object, spoken: Callable[[object], object] = lambda said: said) -> Values | None:
    others = _without(values, "instruction", "input", "output", "system", "history")
    if {"chosen", "rejected"} <= values.keys():
        return {**others, "prompt": prompt, **{name: _once(values[name], spoken) for name in ("chosen", "rejected")}}
    if "output" in values:
        return {**others, "prompt": prompt, "completion": spoken(values["output"])}
    return {**others, "prompt": prompt} if "input" in values else None


def _once(answer: object, spoken: Callable[[object], object]) -> object:
    return spoken(answer) if isinstance(answer, str) else answer


def _question(values: Values) -> str:
    given = values.get("input")
    return f"{values['instruction']}\n\n{given}" if given else str(values["instruction"])


def _after_system(system: object, messages: list[Message]) -> list[Message]:
    if not system or messages[0].get("role") == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def _without(values: Values, *names: str) -> Values:
    return {name: cell for name, cell in values.items() if name not in names}


_FORMATS: dict[str, Callable[[Row], Values | None]] = {
    "ShareGPT": _from_sharegpt,
    "Alpaca": _from_alpaca,
    "Alpaca with system or history": _from_alpaca_with_history,
    "ms-swift": _from_swift,
}
"""Each returns the row's columns under our names, None for a row of another format."""
