"""Scores of single tokens: lists that must fit, and spans of characters that find their tokens."""

import pytest

from rlhf.rewards.checks import Unusable
from rlhf.rewards.protocol import Episode
from rlhf.rewards.token_scores import ends_in, token_scores

NAN = float("nan")


def episode(completion, num_tokens):
    ids = tuple(range(4, 4 + num_tokens))
    return Episode(prompt="p", completion=completion, columns={}, prompt_ids=(4,), response_ids=ids)


class Pieces:
    """A tokenizer whose token i stands for these bytes."""

    def __init__(self, *pieces):
        self.pieces = pieces

    def decode(self, ids, *, skip_special_tokens):
        assert skip_special_tokens
        return b"".join(self.pieces[index] for index in ids).decode("utf-8", "replace")


def test_a_number_a_token_is_taken_as_it_is():
    assert token_scores([1, 0.5, -2], episode("ab", 3), None) == [1.0, 0.5, -2.0]


def test_nothing_scores_no_token():
    assert token_scores([], episode("ab", 3), None) == [0.0, 0.0, 0.0]


def test_a_token_ends_where_its_text_ends(tiny_tokenizer):
    ids = tiny_tokenizer("two steps", add_special_tokens=False).input_ids
    assert ends_in(tiny_tokenizer)([*ids, 2]) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def test_a_part_of_a_character_ends_where_the_character_before_it_does():
    smile = "\U0001f600".encode()
    tokenizer = Pieces(b"so", smile[:1], smile[1:3], smile[3:], b"!")
    assert ends_in(tokenizer)([0, 1, 2, 3, 4]) == [2, 2, 2, 3, 4]
    assert ends_in(tokenizer)([1, 2, 3]) == [0, 0, 1]


def test_the_score_of_a_span_goes_to_the_token_that_completes_it():
    # "ab|cd|e" and an EOS: the span "abc" is complete with the second token, as is "d"; "e" with the third.
    given = [(0, 3, 1.0), (3, 4, 0.25), (4, 5, -2)]
    assert token_scores(given, episode("abcde", 4), lambda ids: [2, 4, 5, 5]) == [0.0, 1.25, -2.0, 0.0]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([1.0, 2.0], r"has 2 numbers for the 3 tokens of the response"),
        ([1.0, 2.0, 3.0, 4.0], r"has 4 numbers for the 3 tokens"),
        ([1.0, NAN, 3.0], "is nan"),
        ([1.0, "2", 3.0], "is str '2'"),
        ([1.0, None, 3.0], "is None"),
        ([(0, 1, 1.0), 2.0], r"mixes spans with 2.0, which is not \(start, end, score\)"),
        ([(0, 1)], "mixes spans with"),
        ([(0, 3, 1.0)], r"has the span \(0, 3\) in a completion of 2 characters"),
        ([(-1, 1, 1.0)], r"has the span \(-1, 1\)"),
        ([(1, 1, 1.0)], r"has the span \(1, 1\)"),
        ([(0, 1.0, 1.0)], r"has the span \(0, 1.0\)"),
        ([(True, 2, 1.0)], r"has the span \(True, 2\)"),
        ([(0, 1, NAN)], "is nan"),
    ],
)
def test_what_does_not_fit_is_refused(given, why):
    with pytest.raises(Unusable, match=why) as caught:
        token_scores(given, episode("ab", 3), lambda ids: [1, 2, 2])
    assert caught.value.is_number == (why == "is nan")


def test_spans_need_a_tokenizer():
    with pytest.raises(Unusable, match="there is no tokenizer to map them to tokens"):
        token_scores([(0, 1, 1.0)], episode("ab", 3), None)
