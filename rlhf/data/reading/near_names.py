"""Which column was probably meant, for messages about a missing column."""

import difflib
from collections.abc import Iterable, Mapping

_OTHER_WORDS = {
    "prompt": ("question", "query", "instruction", "input"),
    "completion": ("response", "answer", "output", "target"),
    "chosen": ("preferred", "accepted", "winner", "better"),
    "rejected": ("dispreferred", "loser", "worse"),
    "messages": ("conversations", "conversation", "chat", "dialogue"),
    "text": ("content", "document", "body"),
}
_NO_TEXT = ("_id", "_ids")
"""How columns end whose names are near and whose cells are not what was meant."""


def hint(needed: Iterable[str], found: Iterable[str]) -> str:
    """Return "; did you mean column_map: {prompt: question}?" with all guesses, or "" without any."""
    return written(guesses(needed, found))


def guesses(needed: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """Return the columns that are missing and have a near one, each of which stands for one of them alone."""
    columns = [name for name in found if isinstance(name, str)]
    guessed: dict[str, str] = {}
    for name in needed:
        if name not in columns:
            guess = nearest(name, [column for column in columns if column not in guessed.values()])
            if guess is not None:
                guessed[name] = guess
    return guessed


def nearest(name: str, columns: Iterable[str]) -> str | None:
    """Return the column that has another word for a name or is spelt almost like it."""
    by_lower = {column.lower(): column for column in columns if not column.lower().endswith(_NO_TEXT)}
    for word in _OTHER_WORDS.get(name, ()):
        if word in by_lower:
            return by_lower[word]
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return by_lower[close[0]] if close else None


def written(column_map: Mapping[str, str]) -> str:
    """Return a column map as a question at the end of a message, "" for an empty one."""
    named = ", ".join(f"{ours}: {theirs}" for ours, theirs in column_map.items())
    return f"; did you mean column_map: {{{named}}}?" if named else ""
