import pytest

from rlhf.data.over_long import kept_prompt
from rlhf.errors import DataError


def fit(prompt, num_response, max_length, over_long, bos_ids=()):
    return kept_prompt(
        prompt, num_response, max_length=max_length, over_long=over_long, bos_ids=bos_ids, location="f.jsonl:1"
    )


@pytest.mark.parametrize("over_long", ["drop", "cut_left", "error"])
def test_what_fits_is_kept_whole(over_long):
    assert fit([1, 2, 3], 2, 5, over_long) == [1, 2, 3]


def test_what_does_not_fit_is_dropped_cut_at_the_left_or_an_error():
    assert fit([1, 2, 3], 2, 4, "drop") is None
    assert fit([1, 2, 3], 2, 4, "cut_left") == [2, 3]
    with pytest.raises(
        DataError, match=r"f.jsonl:1: 5 tokens \(3 prompt \+ 2 response\), at most 4 - raise max_length"
    ):
        fit([1, 2, 3], 2, 4, "error")


def test_a_cut_prompt_keeps_its_bos():
    assert fit([9, 1, 2, 3], 2, 4, "cut_left", bos_ids=[9]) == [9, 3]
    assert fit([1, 2, 3, 4], 2, 4, "cut_left", bos_ids=[9]) == [3, 4]


def test_a_response_is_never_cut():
    assert fit([1, 2], 5, 5, "cut_left") is None  # no token of the prompt would be left
    assert fit([9, 1, 2], 4, 5, "cut_left", bos_ids=[9]) is None
    assert fit([], 6, 5, "cut_left") is None
