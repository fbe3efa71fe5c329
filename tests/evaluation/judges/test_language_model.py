import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest

from rlhf.errors import DataError
from rlhf.evaluation.judges.language_model import TrigramModel

TEXTS = ["the film is good", "the film is bad", "a film is good", "the story is good", "the film is long"]
NOVEL = ["the story is bad", "bad film a", "the zebra is good", "good"]


def slow_probability(texts, min_count, context, word):
    """Interpolated Kneser-Ney, written with dictionaries straight from the definition."""
    tokenized = [text.split() for text in texts]
    frequency = Counter(itertools.chain(*tokenized))
    known = {w for w, n in frequency.items() if n >= min_count}
    rare = max(len(frequency) - len(known), 1)

    def map_word(w):
        return w if w in known or w == "<s>" else "<unk>"

    trigrams = Counter()
    for text in tokenized:
        padded = ["<s>", "<s>", *map(map_word, text)]
        trigrams.update(zip(padded, padded[1:], padded[2:], strict=False))
    bigrams = Counter((b, c) for _, b, c in trigrams)
    unigrams = Counter((c,) for _, c in bigrams)

    def discount(counts):
        once, twice = (sum(n == k for n in counts.values()) for k in (1, 2))
        return once / (once + 2 * twice) if once and twice else 0.5

    def mixed(counts, history, w, lower):
        followers = {key: n for key, n in counts.items() if key[:-1] == history}
        if not followers:
            return lower
        d, total = discount(counts), sum(followers.values())
        return (max(counts[(*history, w)] - d, 0) + d * len(followers) * lower) / total

    a, b = map(map_word, context)
    w = map_word(word)
    one = mixed(unigrams, (), w, 1 / (len(known) + 1))
    three = mixed(trigrams, (a, b), w, mixed(bigrams, (b,), w, one))
    return three / rare if w == "<unk>" else three


@pytest.mark.parametrize("min_count", [1, 2, 3])
@pytest.mark.parametrize("text", TEXTS + NOVEL)
def test_logprobs_equal_the_slow_version(text, min_count):
    model = TrigramModel.train(TEXTS, min_count=min_count)
    padded = ["<s>", "<s>", *text.split()]
    expected = [
        math.log(slow_probability(TEXTS, min_count, padded[i : i + 2], padded[i + 2])) for i in range(len(text.split()))
    ]
    np.testing.assert_allclose(model.logprobs(text), expected, rtol=1e-12)


@pytest.mark.parametrize("history", ["", "the", "the film", "the film is", "bad bad", "zebra"])
def test_the_probabilities_of_all_next_words_sum_to_one(history):
    model = TrigramModel.train(TEXTS, min_count=1)
    vocabulary = sorted(set(itertools.chain(*(text.split() for text in TEXTS))))
    next_words = [*vocabulary, "zebra"]  # any unseen word stands for the unknown one
    total = sum(math.exp(model.logprobs(f"{history} {word}")[-1]) for word in next_words)
    assert total == pytest.approx(1.0, abs=1e-12)


def test_rare_words_share_the_probability_of_the_unknown_word():
    model = TrigramModel.train(TEXTS, min_count=2)  # a, bad, long and story occur once
    known = ["the", "film", "is", "good"]
    total = sum(math.exp(model.logprobs(f"the {word}")[-1]) for word in known)
    rare = [math.exp(model.logprobs(f"the {word}")[-1]) for word in ("a", "bad", "long", "story", "zebra")]
    assert len(set(rare)) == 1
    assert total + 4 * rare[0] == pytest.approx(1.0, abs=1e-12)


def test_perplexity_is_exp_of_minus_the_mean_logprob_of_each_text_alone():
    model = TrigramModel.train(TEXTS, min_count=1)
    texts = ["the film", "", "bad story is good"]
    perplexity = model.perplexity(texts)
    assert perplexity[0] == pytest.approx(math.exp(-model.logprobs(texts[0]).mean()))
    assert perplexity[1] == pytest.approx(model.num_words)
    assert perplexity[2] == pytest.approx(math.exp(-model.logprobs(texts[2]).mean()))


def test_shuffled_words_are_more_perplexing():
    model = TrigramModel.train(TEXTS * 5)
    shuffled = " ".join(random.Random(1).sample(TEXTS[0].split(), 4))
    assert shuffled != TEXTS[0]
    assert model.perplexity([shuffled])[0] > 2 * model.perplexity([TEXTS[0]])[0]


def test_scoring_nothing_returns_nothing():
    assert TrigramModel.train(TEXTS).perplexity([]).shape == (0,)


def test_training_on_no_words_is_refused():
    with pytest.raises(ValueError, match="found none in 2 texts"):
        TrigramModel.train(["", "  "])


def test_a_saved_model_loads_back_equal(tmp_path):
    model = TrigramModel.train(TEXTS, min_count=2)
    model.save(tmp_path / "lm")
    loaded = TrigramModel.load(tmp_path / "lm")
    np.testing.assert_array_equal(loaded.perplexity(TEXTS + NOVEL), model.perplexity(TEXTS + NOVEL))


@pytest.mark.parametrize("name", ["language_model.json", "language_model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_missing_or_cut_file_is_refused_with_its_directory(tmp_path, name, damage):
    TrigramModel.train(TEXTS).save(tmp_path)
    file = tmp_path / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(DataError, match="not a readable language model"):
        TrigramModel.load(tmp_path)
