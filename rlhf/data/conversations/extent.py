"""How large a value of a template is: in memory, and written out, where shared parts count as often as they occur."""

from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from typing import Any, NamedTuple

from jinja2.utils import Namespace

REFERENCE = 8
"""Characters' worth of an element of a list."""
SMALL = 64
"""Characters' worth of a small object, such as a number."""


class Extent(NamedTuple):
    """A value that is written out."""

    chars: int
    number: int
    """Elements of its lists and dictionaries, and of those inside."""
    depth: int
    """How deep they are nested."""
    widths: int
    """The sum of its numbers without their signs: any may be a width of something."""


def length(value: Any) -> int:
    """Return about the bytes that a value takes, without what it refers to."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 8
    return REFERENCE * len(value) if isinstance(value, list | tuple | dict | set | frozenset) else 0


def written(value: Any) -> int:
    """Return the characters of a value that is written out."""
    return extent(value, {}).chars


def extent(value: Any, known: dict[int, tuple[Any, Extent]]) -> Extent:
    """Measure a value that is written out, each part once.

    Args:
        value: anything that a template holds.
        known: parts that were measured before, by id; they are held, so that no other part gets their id.
    """
    if isinstance(value, str | bytes):
        return Extent(len(value) + 2, 1, 0, 0)
    held = parts(value)
    if held is None:
        return Extent(SMALL + length(value) * 3, 1, 0, abs(value) if isinstance(value, int) else 0)
    if id(value) not in known:
        known[id(value)] = value, Extent(SMALL, 1, 0, 0)  # what holds itself is written as dots
        found = [extent(part, known) for part in held]
        chars = SMALL + sum(each.chars + 4 for each in found)
        number = 1 + sum(each.number for each in found)
        depth = 1 + max((each.depth for each in found), default=0)
        known[id(value)] = value, Extent(chars, number, depth, sum(each.widths for each in found))
    return known[id(value)][1]


def parts(value: Any) -> list[Any] | None:
    """Return what a container holds, None for anything else."""
    if isinstance(value, Namespace):
        return parts(vars(value)["_Namespace__attrs"])
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    held = isinstance(value, list | tuple | set | frozenset | KeysView | ValuesView | ItemsView)
    return list(value) if held else None
