import math

import numpy as np
import pytest
import torch

from rlhf.errors import RewardError
from rlhf.printable import quoted
from rlhf.rewards.checks import checked_scores

NAN, INF = float("nan"), float("inf")


class Table:
    def __repr__(self):
        return "one\ntwo"


class Series:
    """What pandas, jax and others have in common with a 1-D array."""

    ndim = 1

    def tolist(self):
        return [1.0, 2.0]


@pytest.mark.parametrize(
    "raw",
    [
        [1.0, 2.0],
        (1.0, 2.0),
        [1, 2],
        torch.tensor([1.0, 2.0]),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([1, 2]),
        torch.tensor([1.0, 2.0], requires_grad=True),
        np.array([1.0, 2.0], dtype=np.float32),
        [np.float32(1.0), np.int64(2)],
        [torch.tensor(1.0), torch.tensor(2)],
        Series(),
    ],
)
def test_lists_tuples_and_vectors_of_numbers_become_floats(raw):
    scores = checked_scores(raw, 2, "reward 'r.py:f'")
    assert scores == [1.0, 2.0]
    assert [type(score) for score in scores] == [float, float]


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ([0.5] * 15, "list of 15"),
        ([0.5] * 17, "list of 17"),
        ([], "list of 0"),
        ((0.5,) * 15, "tuple of 15"),
        (torch.zeros(15), "Tensor of 15"),
        (torch.zeros(16, 1), r"Tensor of shape \[16, 1\]"),
        (torch.tensor(1.0), r"Tensor of shape \[\]"),
        (np.zeros((1, 16)), r"ndarray of shape \[1, 16\]"),
        (None, "None"),
        (1.0, "float"),
        ("0123456789abcdef", "str of 16"),
        (dict.fromkeys(range(16), 1.0), "dict of 16"),
        (set(range(16)), "set of 16"),
        ((x for x in range(16)), "generator"),
    ],
)
def test_another_container_or_length_is_refused(raw, found):
    with pytest.raises(RewardError, match=f"^reward 'r.py:f': expected 16 floats, got {found}$"):
        checked_scores(raw, 16, "reward 'r.py:f'")


def test_one_response_needs_one_float():
    with pytest.raises(RewardError, match=r"expected 1 float, got list of 2$"):
        checked_scores([1.0, 2.0], 1, "r")


@pytest.mark.parametrize(
    ("score", "found"),
    [
        (None, "None"),
        (NAN, "nan"),
        (INF, "inf"),
        (-INF, "-inf"),
        ("0.5", "str '0.5'"),
        ([1.0], r"list \[1.0\]"),
        (1j, "complex 1j"),
        (1e39, r"1e\+39"),
        (10**400, "an int beyond the range of float32"),
        (torch.tensor(NAN), "nan"),
        (torch.tensor([1.0]), r"list \[1.0\]"),
        (np.float64(NAN), "nan"),
        ("a\nb\x1b[31m", r"str 'a\\nb\\x1b\[31m'"),
    ],
)
def test_a_score_that_is_not_a_finite_number_is_refused_with_its_index(score, found):
    with pytest.raises(RewardError, match=f"^r: score 2 is {found}; expected one finite float per response$") as caught:
        checked_scores([0.0, 1.0, score, 2.0], 4, "r")
    assert caught.value.exit_status == 5


@pytest.mark.parametrize("raw", [torch.tensor([0.0, NAN]), np.array([0.0, NAN]), torch.tensor([0.0, NAN]).half()])
def test_a_bad_score_inside_a_vector_is_found(raw):
    with pytest.raises(RewardError, match="score 1 is nan"):
        checked_scores(raw, 2, "r")


@pytest.mark.parametrize(
    "raw",
    [[True, False], (np.bool_(True), np.bool_(False)), torch.tensor([True, False]), np.array([True, False]),
     [torch.tensor(True), 0]],
)  # fmt: skip
def test_a_rule_may_answer_with_truth_values(raw):
    scores = checked_scores(raw, 2, "r")
    assert scores == [1.0, 0.0] and all(type(score) is float for score in scores)


def test_the_largest_float32_is_accepted():
    largest = torch.finfo(torch.float32).max
    assert checked_scores([largest, -largest, 0.0], 3, "r") == [largest, -largest, 0.0]
    assert math.isfinite(torch.tensor(largest, dtype=torch.float32).item())


def test_the_prompt_of_a_bad_score_is_quoted_on_one_line_and_cut():
    prompts = ["first", "Dear\n\x1b]0;title\x07reader, " + "x" * 1000]
    with pytest.raises(RewardError) as caught:
        checked_scores([1.0, NAN], 2, "r", prompts)
    start = r"'Dear\n\x1b]0;title\x07reader, "
    quote = start + "x" * (77 - len(start)) + "..."
    assert str(caught.value) == f"r: score 1 is nan for the prompt {quote}; expected one finite float per response"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "'plain'"),
        ("", "''"),
        ("a\u202eb", "'a\\u202eb'"),
        ("x" * 78, "'" + "x" * 78 + "'"),
        ("x" * 79, "'" + "x" * 76 + "..."),
        ("x" * 500, "'" + "x" * 76 + "..."),
        ("\x00" * 80, "'" + "\\x00" * 19 + "..."),
        (Table(), "one\\ntwo"),
        ([{"role": "user", "content": "hi"}], "[{'role': 'user', 'content': 'hi'}]"),
    ],
)
def test_quotes_are_at_most_80_printable_characters(text, expected):
    assert quoted(text) == expected
    assert len(quoted(text)) <= 80
    assert quoted(text).isprintable()
