"""English review text: cleaning, a simple sentence splitter, and pieces that are runs of whole sentences."""

import functools
import re
from collections.abc import Sequence, Set

MIN_WORDS = 10
MAX_WORDS = 30
"""A piece has 10 to 30 words: about 13 to 42 tokens, which a small model can judge or write in one go."""
MIN_TELLING_WORDS = 6
"""A shorter sentence ("I loved it.") may occur in any text; a longer one identifies its text."""

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]?[A-Z])")
_ABBREVIATION = re.compile(r"(?:^|[\s(\"'])(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|Prof|Lt|Col|Capt|Gen|vs|etc|[A-Z])\.$")
_SOUND = re.compile(r"[\"'(]?[A-Z0-9][ !\"$%&'(),\-./0-9:;?A-Za-z]*[.!?][\"')]*")
_ADDRESS = re.compile(r"https?:|www\.|\.com\b|\.org\b|\.net\b", re.IGNORECASE)


def clean(text: str) -> str:
    """Turn line-break tags into spaces and runs of white space into one space."""
    return " ".join(_BREAK.sub(" ", text).split())


@functools.lru_cache(2**20)  # a sentence is looked at where it stands, and in each piece that it may begin
def normalised(text: str) -> str:
    """Return only the lower-case words; texts in which these are equal count as the same."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def split_sentences(text: str) -> list[str]:
    """Split cleaned text after [.!?] before a capital; not after initials and common abbreviations."""
    sentences: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        sentence = text[start : match.end()].strip()
        if not _ABBREVIATION.search(sentence):
            sentences.append(sentence)
            start = match.end()
    last = text[start:].strip()
    return [*sentences, last] if last else sentences


@functools.lru_cache(2**20)
def is_sound(sentence: str) -> bool:
    """Tell whether a sentence is plain ASCII prose with end punctuation, balanced quotes and brackets, and no URL."""
    return (
        _SOUND.fullmatch(sentence) is not None
        and sentence.count('"') % 2 == 0
        and sentence.count("(") == sentence.count(")")
        and _ADDRESS.search(sentence) is None
    )


def all_pieces(sentences: Sequence[str], barred: Set[str]) -> list[str]:
    """Cut a text into as many pieces as possible, from start to end.

    Args:
        sentences: of one text, in order.
        barred: normalised sentences that no piece may hold.
    """
    pieces: list[str] = []
    start = 0
    while start < len(sentences):
        stop = _longest_run(sentences, barred, start)
        if stop > start and len(" ".join(sentences[start:stop]).split()) >= MIN_WORDS:
            pieces.append(" ".join(sentences[start:stop]))
        start = max(stop, start + 1)
    return pieces


def opening_and_closing(pieces: Sequence[str]) -> list[str]:
    """Return the first piece and the last one (which usually holds the verdict), or the only one."""
    return [pieces[0], pieces[-1]] if len(pieces) > 1 else list(pieces)


def _longest_run(sentences: Sequence[str], barred: Set[str], start: int) -> int:
    """Return where the longest run of usable sentences from `start` within MAX_WORDS stops."""
    num_words = 0
    stop = start
    while stop < len(sentences):
        sentence = sentences[stop]
        num_words += len(sentence.split())
        if num_words > MAX_WORDS or not is_sound(sentence) or normalised(sentence) in barred:
            break
        stop += 1
    return stop
