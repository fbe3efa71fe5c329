"""What is wrong with a configuration, in the user's terms: one line for each of pydantic's errors."""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from rlhf.config.reading.keys import INDEX, keys_of
from rlhf.config.reading.secrets import holds_secret

_MEANINGS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "missing": lambda ctx: "required, but missing",
    "greater_than": lambda ctx: f"must be greater than {ctx['gt']:.12g}",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']:.12g}",
    "less_than": lambda ctx: f"must be less than {ctx['lt']:.12g}",
    "less_than_equal": lambda ctx: f"must be at most {ctx['le']:.12g}",
    "finite_number": lambda ctx: "must be a finite number",
    "int_type": lambda ctx: "must be an integer",
    "int_from_float": lambda ctx: "must be an integer",
    "float_type": lambda ctx: "must be a number",
    "bool_type": lambda ctx: "must be true or false",
    "string_type": lambda ctx: "must be text",
    "list_type": lambda ctx: "must be a list",
    "tuple_type": lambda ctx: "must be a list",
    "dict_type": lambda ctx: "must be a section (keys and values)",
    "model_type": lambda ctx: "must be a section (keys and values)",
    "none_required": lambda ctx: "must be null",
    "literal_error": lambda ctx: f"must be {ctx['expected']}",
    "enum": lambda ctx: f"must be {ctx['expected']}",
    "union_tag_not_found": lambda ctx: f"must name its {ctx['discriminator']}",
    "union_tag_invalid": lambda ctx: f"{ctx['discriminator']} must be one of {ctx['expected_tags']}",
    "string_pattern_mismatch": lambda ctx: "must be a name such as user/name",
    "too_short": lambda ctx: f"must hold at least {ctx['min_length']}, holds {ctx['actual_length']}",
}
_STAND_INS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "greater_than": lambda ctx: ctx["gt"] + 1,
    "greater_than_equal": lambda ctx: ctx["ge"],
    "less_than": lambda ctx: ctx["lt"] - 1,
    "less_than_equal": lambda ctx: ctx["le"],
    "finite_number": lambda ctx: 1,
    "int_type": lambda ctx: 1,
    "int_from_float": lambda ctx: 1,
    "float_type": lambda ctx: 1,
    "string_type": lambda ctx: "text",
}
_LONGEST_VALUE = 80
"""Characters shown of a found value."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    path: tuple[str | int, ...]
    """Where, in the keys and indexes of the file; empty for the file as a whole."""
    text: str
    """What is wrong, and how to fix it."""
    stand_in: object = None
    """A valid value for checking the rest, or None to leave the key out."""

    @property
    def dotted(self) -> str:
        """The path as it is written in an override."""
        return ".".join(map(str, self.path))


def explain(errors: Sequence[ErrorDetails], mapping: Mapping[str, object], model: type[BaseModel]) -> list[Problem]:
    """Turn pydantic's errors into problems, one for each path, in the order in which they were found.

    Args:
        errors: `ValidationError.errors()`.
        mapping: what was validated.
        model: the schema.

    Returns:
        The problems; the errors of a union's branches become one.
    """
    texts: dict[tuple[tuple[str | int, ...], str], list[str]] = {}
    stand_ins: dict[tuple[str | int, ...], object] = {}
    for error in errors:
        path = _path(error, mapping)
        text = _text(error, path, model)
        branches = texts.setdefault((path, _found(error, path)), [])
        if text not in branches:
            branches.append(text)
        if error["type"] in _STAND_INS:
            stand_ins.setdefault(path, _STAND_INS[error["type"]](error.get("ctx", {})))
    return [Problem(path, _joined(branches) + found, stand_ins.get(path)) for (path, found), branches in texts.items()]


def _path(error: ErrorDetails, value: object) -> tuple[str | int, ...]:
    """Return where an error is, without the names of union branches, which pydantic puts between the keys."""
    path: list[str | int] = []
    for part in error["loc"]:
        if _holds(value, part):
            value = value[part]  # type: ignore[index]
            path.append(part)
    return (*path, error["loc"][-1]) if error["type"] == "missing" else tuple(path)


def _holds(value: object, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _text(error: ErrorDetails, path: tuple[str | int, ...], model: type[BaseModel]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key" + _hint(near_keys(path, model))
    if kind not in _MEANINGS:
        return error["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    text = _MEANINGS[kind](context)
    allowed = re.findall(r"'([^']*)'", str(context.get("expected", context.get("expected_tags", ""))))
    given = context.get("tag", error["input"])
    return text + _hint(difflib.get_close_matches(given, allowed, n=1) if isinstance(given, str) else [])


def _hint(near: Sequence[str]) -> str:
    return f" (did you mean {near[0]}?)" if near else ""


def _joined(texts: Sequence[str]) -> str:
    """Join the texts of a union's branches: `must be an integer or 'auto'`."""
    if len(texts) > 1 and all(text.startswith("must be ") for text in texts):
        return texts[0] + "".join(f" or {text.removeprefix('must be ')}" for text in texts[1:])
    return "; or: ".join(texts)


def _found(error: ErrorDetails, path: tuple[str | int, ...]) -> str:
    value = error["input"]
    if error["type"] == "missing" or not path or (isinstance(value, dict | list) and error["type"] == "value_error"):
        return ""
    if any(holds_secret(part) for part in path):
        return " [got a secret]"
    shown = json.dumps(value, default=str)
    return f" [got {shown if len(shown) <= _LONGEST_VALUE else shown[: _LONGEST_VALUE - 3] + '...'}]"


def near_keys(path: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Return known keys that an unknown one may have meant, likeliest first.

    A near name in the same section comes first, then the same name in another section, then a near name there.
    """
    *section, name = path
    name, own = str(name), ".".join(map(str, section))
    pattern = ".".join(INDEX if isinstance(part, int) else part for part in section)
    here: dict[str, str] = {}
    elsewhere: dict[str, list[str]] = {}
    for key in keys_of(model):
        parent, _, last = key.path.rpartition(".")
        if parent == pattern:
            here[last] = f"{own}.{last}" if own else last
        else:
            elsewhere.setdefault(last, []).append(key.path)
    siblings = [here[near] for near in difflib.get_close_matches(name, here) if near != name]
    others = [path for near in difflib.get_close_matches(name, elsewhere) for path in elsewhere[near]]
    return siblings + others
