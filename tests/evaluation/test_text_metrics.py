import pytest

from rlhf.evaluation.text_metrics import distinct_n, num_words, repeated_bigram_share, words


def test_words_are_lower_cased_and_punctuation_stands_alone():
    assert words("It\u2019s odd, isn't IT?") == ["it's", "odd", ",", "isn't", "it", "?"]


def test_letters_outside_ascii_stay_in_their_word():
    assert words("Am\u00e9lie 2_b") == ["am\u00e9lie", "2", "_", "b"]


def test_num_words_counts_words_and_punctuation():
    assert num_words("good , good .") == 4
    assert num_words("") == 0


def test_repeated_bigram_share_by_hand():
    # a b, b a, a b, b c: four bigrams, one of them seen before
    assert repeated_bigram_share("a b a b c") == 1 / 4
    assert repeated_bigram_share("a a a a") == 2 / 3


@pytest.mark.parametrize("text", ["", "one", "one two three"])
def test_a_text_that_repeats_nothing_has_share_zero(text):
    assert repeated_bigram_share(text) == 0.0


def test_distinct_n_by_hand():
    # text 1: a b, b a; text 2: a b. Two distinct of three; no bigram spans the two texts.
    assert distinct_n(["a b a", "a b"], 2) == 2 / 3
    assert distinct_n(["a b a", "a b"], 1) == 2 / 5


def test_distinct_n_of_texts_shorter_than_n_is_zero():
    assert distinct_n(["a", ""], 2) == 0.0


def test_distinct_n_refuses_n_below_one():
    with pytest.raises(ValueError, match="n must be at least 1, found 0"):
        distinct_n(["a"], 0)
