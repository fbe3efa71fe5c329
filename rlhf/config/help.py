"""Lists every key of a configuration, as `rlhf VERB --help` prints it."""

import json
import textwrap
from enum import Enum

from pydantic import BaseModel

from rlhf.config.reading.keys import Key, keys_of

_WIDTH = 100
"""Columns of the printed page."""


def describe(model: type[BaseModel]) -> str:
    """List every key of a schema with its type, range, default, and meaning with the unit.

    Returns:
        Two or more lines for each key: `ppo.kl_coef: number >= 0 (default 0.05)`, then the meaning, indented.
    """
    return "\n".join(_entry(key) for key in keys_of(model))


def _entry(key: Key) -> str:
    line = f"{key.path}: {key.type_name}{_state(key)}"
    if not key.description:
        return line
    meaning = textwrap.fill(key.description, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return f"{line}\n{meaning}"


def _state(key: Key) -> str:
    if key.required:
        return " (required)"
    if isinstance(key.default, BaseModel):
        return ""
    return f" (default {_value(key.default)})"


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Enum):
        return _value(value.value)
    return json.dumps(value, default=str)
