"""How long the result of an operation in a template will be, told before it is computed: never less than it is.

Most operations on a text give one that is at most a few times as long. Those named here take a number as a width, or
put one text into another in many places: for them the length follows from what they are given.
"""

import re
from collections.abc import Callable
from typing import Any

from rlhf.data.conversations.extent import REFERENCE, SMALL, extent, length, written

ESCAPED = 6
"""Characters into which one may turn, as `<` does in JSON."""
_DIGITS = re.compile(r"\d+")
_SPACE = re.compile(r"\s")
_NESTED = re.compile(r"\{[^{}]*\{")
"""A place of a pattern whose width comes from the values."""
_FEW = 10_000
_HUGE = 10**18


def of_operator(operator: str, left: Any, right: Any) -> int:
    """Return the length of `left operator right`; that of numbers as the square, as the time to multiply them grows."""
    if isinstance(left, int) and isinstance(right, int):
        return (left.bit_length() + right.bit_length()) ** 2 // SMALL
    if operator == "%" and isinstance(left, str | bytes):
        return _filled(left, "%", right)
    if operator == "*":
        for sequence, number in ((left, right), (right, left)):
            if isinstance(number, int) and not isinstance(sequence, int | float):
                return length(sequence) * max(0, number)
    return length(left) + length(right)


def _filled(pattern: Any, mark: str, *values: Any) -> int:
    """Return the length of a pattern with values in its places: each may take all of them, at the largest width."""
    text = str(pattern)
    size = extent(values, {})
    widths = _widths(text)
    if _NESTED.search(text):  # a text may be a width as well
        widths += _widths(str(values)) if size.chars < _FEW else _HUGE
    return len(text) + text.count(mark) * (ESCAPED * size.chars + widths + size.widths)


def _widths(text: str) -> int:
    """Return the sum of the numbers in a text, any of which may be a width."""
    return sum(int(digits) if len(digits) < len(str(_HUGE)) else _HUGE for digits in _DIGITS.findall(text))


def _width(text: Any, width: Any = 80, *_: Any) -> int:
    return max(written(text), width if isinstance(width, int) else 0)


def _replaced(text: Any, old: Any, new: Any, *_: Any) -> int:
    whole: Any = text if isinstance(text, bytes) else str(text)
    number = whole.count(old) if isinstance(old, type(whole)) else len(whole) + 1
    return len(whole) + number * written(new)


def _joined(separator: Any, items: Any) -> int:
    held = list(items)
    return ESCAPED * written(held) + len(held) * written(separator)


def _split(text: Any, sep: Any = None, *_: Any) -> int:
    if not isinstance(text, str):
        return SMALL * length(text)
    return len(text) + SMALL * (1 + (text.count(sep) if sep else sum(1 for _ in _SPACE.finditer(text))))


def _indented(text: Any, width: Any = 4, *_: Any) -> int:
    by = width if isinstance(width, int) else written(width)
    return written(text) + (str(text).count("\n") + 2) * max(0, by)


def _as_json(value: Any, _ascii: Any = False, indent: Any = None, separators: Any = None, *_: Any) -> int:
    size = extent(value, {})
    by = indent if isinstance(indent, int) else written(indent)
    return ESCAPED * size.chars + size.number * (size.depth * max(0, by) + written(separators))


def _printed(value: Any, *_: Any) -> int:
    size = extent(value, {})
    return size.chars * size.number


def _summed(items: Any, attribute: Any = None, start: Any = 0) -> int:
    return 0 if isinstance(start, int | float) else REFERENCE * written(list(items))


def _anywhere(value: Any, *given: Any) -> int:
    """Return the bound for what puts its arguments wherever it may in a value."""
    size = extent(given, {})
    return (written(value) + 1) * (size.chars + ESCAPED) + size.widths


METHODS: dict[str, Callable[..., int]] = {
    "center": _width,
    "expandtabs": lambda text, size=8: len(text) * (1 + max(0, size)),
    "format": lambda text, *values: _filled(text, "{", *values),
    "format_map": lambda text, values: _filled(text, "{", values),
    "join": _joined,
    "ljust": _width,
    "replace": _replaced,
    "rjust": _width,
    "rsplit": _split,
    "split": _split,
    "splitlines": lambda text, *_: _split(text),
    "to_bytes": lambda number, size=1, *_: size,
    "translate": lambda text, table: len(text) * written(table),
    "zfill": _width,
}
"""The length of what a method returns, from the text or number that it is one of and its arguments."""
FUNCTIONS: dict[str, Callable[..., int]] = {"raise_exception": written}
"""The length of what a function of the environment makes, from its arguments: here of a message."""
FILTERS: dict[str, Callable[..., int]] = {
    "batch": _anywhere,
    "center": _width,
    "format": lambda text, *values: _filled(text, "%", *values),
    "indent": _indented,
    "join": lambda items, separator="", *_: _joined(separator, items),
    "list": lambda value: SMALL * len(value) if isinstance(value, str) else 0,
    "pprint": _printed,
    "replace": _replaced,
    "round": lambda number, precision=0, *_: SMALL * abs(precision) if isinstance(precision, int) else 0,
    "slice": _anywhere,
    "string": written,
    "sum": _summed,
    "tojson": _as_json,
    "truncate": _anywhere,
    "urlize": _anywhere,
    "wordwrap": _anywhere,
    "xmlattr": _anywhere,
}
"""The length of what a filter returns, from the value and the filter's arguments."""
