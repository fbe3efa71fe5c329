"""Text that is safe to show: without control characters, or with visible ones, and without Markdown of its own."""

import html
import re
from collections.abc import Mapping

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 except tab and newline, DEL, C1, marks that change the writing direction, and halves of surrogate pairs."""
_QUOTE_CHARS = 80


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


def one_line(text: str) -> str:
    """Return `printable` text on one line."""
    return " ".join(printable(text).split())


def quoted(text: object) -> str:
    """Return `text` on one line, control characters escaped, at most 80 characters long."""
    quote = repr(text[:_QUOTE_CHARS] if isinstance(text, str) else text)
    if not quote.isprintable():  # the repr of a string is printable, that of another object may have several lines
        quote = repr(quote)[1:-1]
    return quote if len(quote) <= _QUOTE_CHARS else quote[: _QUOTE_CHARS - 3] + "..."


def escaped_markdown(text: str) -> str:
    """Return Markdown that shows `text` as it is: no emphasis, table, picture, link, address or HTML comes of it."""
    plain = html.escape(re.sub(r"[\\|*_`~]", r"\\\g<0>", text), quote=False)
    unlinked = plain.replace("](", "]\\(").replace("://", "&#58;//").replace("@", "&#64;")
    return re.sub(r"(?i)\b(www)\.", r"\1&#46;", unlinked)


def text_of(prompt: object) -> str:
    """Return a prompt as text; of a conversation each message with its role."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list):
        return "\n".join(text_of(message) for message in prompt)
    if isinstance(prompt, Mapping):
        return f"{prompt.get('role', '')}: {text_of(prompt.get('content', ''))}"
    return "" if prompt is None else str(prompt)
