"""A trigram language model of human text, independent of every policy: it measures how fluent a text is.

Interpolated Kneser-Ney with one discount per order. Left out: modified discounts, orders above three, pruning.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rlhf.disk import readable_as_its_folder
from rlhf.errors import DataError
from rlhf.evaluation.text_metrics import words

UNKNOWN, START = 0, 1
_NUM_SPECIAL = 2
_ID_BITS = 21  # three word ids share one int64 key

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Order:
    """The counts of one n-gram order, looked up by binary search in sorted keys."""

    keys: Ints
    counts: Ints
    context_keys: Ints
    context_totals: Ints
    context_types: Ints
    discount: float

    @classmethod
    def of(cls, keys: Ints, counts: Ints) -> Self:
        contexts, start = np.unique(keys >> _ID_BITS, return_index=True)
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        # Ney, Essen and Kneser 1994: D = n1 / (n1 + 2 n2); a tiny corpus may lack either count.
        discount = once / (once + 2 * twice) if once and twice else 0.5
        totals = np.add.reduceat(counts, start)
        return cls(keys, counts, contexts, totals, np.diff(np.append(start, len(keys))), discount)

    def probability(self, keys: Ints, lower: Floats) -> Floats:
        """Return (max(count - D, 0) + D * types * lower) / total; `lower` itself where the context is unseen."""
        row = _find(self.keys, keys)
        count = np.where(row >= 0, self.counts[row], 0)
        row = _find(self.context_keys, keys >> _ID_BITS)
        total = np.where(row >= 0, self.context_totals[row], 1)
        types = np.where(row >= 0, self.context_types[row], 1)
        mixed = (np.maximum(count - self.discount, 0) + self.discount * types * lower) / total
        return np.where(row >= 0, mixed, lower)


class TrigramModel:
    """P(word | two words before it), with words seen too rarely sharing the probability of the unknown word.

    Source: Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 2.7.
    Each text begins with two start marks. Its end is not predicted, because responses and pieces are cut at a length.
    """

    def __init__(self, vocabulary: Sequence[str], num_rare: int, keys: Ints, counts: Ints) -> None:
        """Derive the lower orders from the trigram counts.

        Args:
            vocabulary: the known words.
            num_rare: number of distinct words that the unknown word stands for; they share its probability equally.
            keys: sorted distinct trigrams, packed by `_pack`.
            counts: how often each occurs.
        """
        self._vocabulary = list(vocabulary)
        self._num_rare = max(num_rare, 1)
        self._ids = {word: index for index, word in enumerate(self._vocabulary, start=_NUM_SPECIAL)}
        self._trigrams = _Order.of(keys, counts)
        # Kneser-Ney: a lower order counts the distinct words before an n-gram, not its occurrences.
        self._bigrams = _Order.of(*np.unique(keys & ((1 << 2 * _ID_BITS) - 1), return_counts=True))
        unigram_keys = self._bigrams.keys & ((1 << _ID_BITS) - 1)
        self._unigrams = _Order.of(*np.unique(unigram_keys, return_counts=True))

    @classmethod
    def train(cls, texts: Sequence[str], *, min_count: int = 3) -> Self:
        """Count the trigrams of `texts`; words seen fewer than `min_count` times become the unknown word."""
        tokenized = [words(text) for text in texts]
        frequency = Counter(word for text in tokenized for word in text)
        if not frequency:
            raise ValueError(f"a language model needs words, found none in {len(texts)} texts")
        vocabulary = sorted(word for word, count in frequency.items() if count >= min_count)
        if len(vocabulary) + _NUM_SPECIAL >= 1 << _ID_BITS:
            raise ValueError(f"at most {1 << _ID_BITS} distinct words, found {len(vocabulary)}")
        ids = {word: index for index, word in enumerate(vocabulary, start=_NUM_SPECIAL)}
        keys = _trigram_keys(tokenized, ids)
        return cls(vocabulary, len(frequency) - len(vocabulary), *np.unique(keys, return_counts=True))

    @property
    def num_words(self) -> int:
        """The number of distinct words of the training text, rare ones included."""
        return len(self._vocabulary) + self._num_rare

    def logprobs(self, text: str) -> Floats:
        """Return the log probability in nats of each word of `text`, after the words before it."""
        return self._logprobs(_trigram_keys([words(text)], self._ids))

    def perplexity(self, texts: Sequence[str]) -> Floats:
        """Return exp of minus the mean log probability per word, for each text [len(texts)].

        A text without words predicts nothing and gets the perplexity of a uniform guess, `num_words`.
        """
        tokenized = [words(text) for text in texts]
        lengths = np.array([len(tokens) for tokens in tokenized], dtype=np.int64)
        logprobs = self._logprobs(_trigram_keys(tokenized, self._ids))
        text_index = np.repeat(np.arange(len(texts)), lengths)
        sums = np.bincount(text_index, weights=logprobs, minlength=len(texts))
        means = np.where(lengths > 0, sums / np.maximum(lengths, 1), -np.log(self.num_words))
        return np.asarray(np.exp(-means), dtype=np.float64)

    def save(self, directory: str | Path) -> None:
        """Write `language_model.safetensors` and `language_model.json` into `directory`."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"keys": self._trigrams.keys, "counts": self._trigrams.counts}, folder / "language_model.safetensors")
        readable_as_its_folder(folder / "language_model.safetensors")
        record = {"num_rare": self._num_rare, "vocabulary": self._vocabulary}
        (folder / "language_model.json").write_text(json.dumps(record), encoding="utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what `save` wrote; raise DataError where a file is missing or broken."""
        folder = Path(directory)
        try:
            record: dict[str, Any] = json.loads((folder / "language_model.json").read_text(encoding="utf-8"))
            arrays = load_file(folder / "language_model.safetensors")
            return cls(record["vocabulary"], record["num_rare"], arrays["keys"], arrays["counts"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise DataError(f"{folder}: not a readable language model: {error}; train the gold judge again") from error

    def _logprobs(self, keys: Ints) -> Floats:
        word_ids = keys & ((1 << _ID_BITS) - 1)
        # The uniform floor is over the known words and the unknown word; the start mark is never predicted.
        uniform = np.full(len(keys), 1.0 / (len(self._vocabulary) + 1))
        unigram = self._unigrams.probability(word_ids, uniform)
        bigram = self._bigrams.probability(keys & ((1 << 2 * _ID_BITS) - 1), unigram)
        trigram = self._trigrams.probability(keys, bigram)
        return np.asarray(np.log(np.where(word_ids == UNKNOWN, trigram / self._num_rare, trigram)), dtype=np.float64)


def _trigram_keys(tokenized: Sequence[Sequence[str]], ids: dict[str, int]) -> Ints:
    """Return one packed trigram per word, texts one after the other; each text begins with two start marks."""
    sequences = [[START, START, *(ids.get(word, UNKNOWN) for word in text)] for text in tokenized]
    flat = np.array([word_id for sequence in sequences for word_id in sequence], dtype=np.int64)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    is_word = np.ones(len(flat), dtype=bool)
    is_word[np.concatenate([starts, starts + 1]).astype(np.int64)] = False
    position = np.flatnonzero(is_word)
    return (flat[position - 2] << 2 * _ID_BITS) | (flat[position - 1] << _ID_BITS) | flat[position]


def _find(table: Ints, keys: Ints) -> Ints:
    """Return the row of each key in the sorted `table`, -1 where it is absent."""
    row = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[row] == keys, row, -1)
