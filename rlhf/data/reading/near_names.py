"""Which column was probably meant, for messages about a missing column."""

import difflib
from collections.abc import Iterable

_OTHER_WORDS = {
    "prompt": ("question", "query", "instruction", "input"),
    "completion": ("response", "answer", "output", "target"),
    "chosen": ("preferred", "accepted", "winner", "better"),
    "rejected": ("dispreferred", "loser", "worse"),
    "messages": ("conversations", "conversation", "chat", "dialogue"),
    "text": ("content", "document", "body"),
}


def hint(needed: Iterable[str], found: Iterable[str]) -> str:
    """Return "; did you mean column_map: {prompt: question}?" with all guesses, or "" without any."""
    columns = [name for name in found if isinstance(name, str)]
    guesses = {name: _nearest(name, columns) for name in needed if name not in columns}
    named = [f"{name}: {guess}" for name, guess in guesses.items() if guess is not None]
    return f"; did you mean column_map: {{{', '.join(named)}}}?" if named else ""


def _nearest(name: str, columns: list[str]) -> str | None:
    by_lower = {column.lower(): column for column in columns}
    for word in _OTHER_WORDS.get(name, ()):
        if word in by_lower:
            return by_lower[word]
    close = difflib.get_close_matches(name, by_lower, n=1, cutoff=0.7)
    return by_lower[close[0]] if close else None
