"""Text that is safe to print or to show: model output without control characters, or with visible ones."""

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 except tab and newline, DEL, C1, marks that change the writing direction, and halves of surrogate pairs."""


def printable(text: str) -> str:
    """Return `text` without the characters that could control a terminal.

    Escape sequences lose their first character and appear as plain text: a model must not be able to set a window's
    title, write to the clipboard, or print right to left over earlier text.
    """
    return _CONTROL.sub("", text)


def visible(text: str) -> str:
    """Return `text` with a visible sign for each character that `printable` removes: a page shows that it was there.

    ESC becomes its picture (U+241B), the other C0 characters theirs; all others become their number, as `[U+202E]`.
    """
    return _CONTROL.sub(lambda found: _sign(ord(found[0])), text)


def _sign(code: int) -> str:
    return chr(0x2400 + code) if code < 0x20 else f"[U+{code:04X}]"
