"""What the rendering of one conversation may still do: turns of loops, characters written, and those of its values."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MAX_STEPS = 200_000
"""Turns of loops and calls of macros for one conversation; a template takes a few for each message."""
MAX_CHARS = 100_000_000
"""Characters that it may write for one conversation, and as many in all the values that it makes on the way."""


class _Left(threading.local):
    """What the rendering in this thread has left; without a bound in whatever is not rendered by us."""

    steps: float = math.inf
    chars: float = math.inf
    made: float = math.inf


class TooMuch(Exception):
    """A template went beyond a bound; says which."""


_left = _Left()


@contextmanager
def budget() -> Iterator[None]:
    """Give what is rendered in this block the whole budget."""
    _left.steps, _left.chars, _left.made = MAX_STEPS, MAX_CHARS, MAX_CHARS
    try:
        yield
    finally:
        _left.steps = _left.chars = _left.made = math.inf


def count_step() -> None:
    """Count a turn of a loop, or a call.

    Raises:
        TooMuch: it was one too many.
    """
    _left.steps -= 1
    if _left.steps < 0:
        raise TooMuch(f"{MAX_STEPS:,} turns of its loops")


def measure(text: Any) -> Any:
    """Count what is written, and return it.

    Raises:
        TooMuch: it is too long.
    """
    if isinstance(text, str):
        _left.chars -= len(text)
        if _left.chars < 0:
            raise TooMuch(f"{MAX_CHARS:,} characters")
    return text


def check_room(chars: float) -> None:
    """Refuse to begin what would make a value of so many characters.

    Raises:
        TooMuch: there is no room for it.
    """
    if chars > _left.made:
        raise TooMuch(f"{MAX_CHARS:,} characters")


def charge(chars: float) -> None:
    """Count the characters of a value that is made.

    Raises:
        TooMuch: there is no room for it.
    """
    check_room(chars)
    _left.made -= chars
