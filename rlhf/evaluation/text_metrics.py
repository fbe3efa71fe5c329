"""Metrics of a text's words alone: length, repetition, variety."""

import re
from collections.abc import Sequence

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]|_")


def words(text: str) -> list[str]:
    """Return the lower-cased words and punctuation marks of `text` ("It's odd." -> it's, odd, .)."""
    return _WORD.findall(text.translate(_QUOTES).lower())


def num_words(text: str) -> int:
    """Return the number of words and punctuation marks of `text`."""
    return len(words(text))


def repeated_bigram_share(text: str) -> float:
    """Return the share of the bigrams of `text` that occurred earlier in it.

    (total - distinct) / total; 0 for a text with fewer than two words.
    """
    bigrams = _ngrams(words(text), 2)
    return (len(bigrams) - len(set(bigrams))) / len(bigrams) if bigrams else 0.0


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Return distinct n-grams over all n-grams of the texts taken together; 0 if there is none.

    No n-gram spans two texts. The number falls as the amount of text grows, so compare equal numbers of texts of like
    length. Source: Li et al. 2016, arXiv:1510.03055, section 5.

    Args:
        texts: the responses of one policy.
        n: words per n-gram, at least 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, found {n}")
    total = 0
    distinct: set[tuple[str, ...]] = set()
    for text in texts:
        ngrams = _ngrams(words(text), n)
        total += len(ngrams)
        distinct.update(ngrams)
    return len(distinct) / total if total else 0.0


def _ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
