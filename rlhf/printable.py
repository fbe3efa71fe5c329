"""Text that is safe to print: model output without control characters."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 except tab and newline, DEL, C1, marks that change the writing direction, and halves of surrogate pairs."""


def printable(text: str) -> str:
    """Return `text` without the characters that could control a terminal.

    Escape sequences lose their first character and appear as plain text: a model must not be able to set a window's
    title, write to the clipboard, or print right to left over earlier text.
    """
    return _CONTROL.sub("", text)
