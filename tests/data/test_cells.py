import pytest

from rlhf.data import cells
from rlhf.data.records import Row
from rlhf.errors import DataError


def row(**values):
    return Row(values, "f.jsonl:3")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "f.jsonl:3: prompt must be text or a list of messages, found null"),
        (3, "found int '3'"),
        (True, "found bool 'True'"),
        ({"role": "user"}, "found dict"),
        ([], "prompt holds no message"),
        (["hi"], r"prompt\[0\] must be an object with role and content, found str 'hi'"),
        ([{"role": "user"}], r"prompt\[0\].content must be text, found null"),
        ([{"role": "user", "content": 5}], r"prompt\[0\].content must be text, found int '5'"),
        ([{"role": None, "content": "x"}], r"prompt\[0\].role must be text, found null"),
        ("half \ud83d", r"lone surrogate \(U\+D83D\) at character 5"),
    ],
)
def test_what_is_neither_text_nor_messages_is_refused(cell, message):
    with pytest.raises(DataError, match=message):
        cells.text_or_messages(row(prompt=cell), "prompt")


def test_keys_that_datasets_filled_with_null_are_dropped_from_messages():
    messages = [{"role": "user", "content": "x", "tool_calls": None}]
    assert cells.text_or_messages(row(prompt=messages), "prompt") == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(("cell", "expected"), [(2, 2.0), (0.5, 0.5), ("1.5", 1.5), (-1, -1.0)])
def test_a_margin_is_a_number_or_its_spelling(cell, expected):
    assert cells.margin(row(margin=cell)) == expected
    assert cells.margin(row()) == 0.0


@pytest.mark.parametrize("cell", [None, "much", True, float("nan"), float("inf"), "nan", [1], 10**400])
def test_other_margins_are_refused(cell):
    with pytest.raises(DataError, match="f.jsonl:3: margin must be a finite number, found"):
        cells.margin(row(margin=cell))


def test_blank_text_and_silent_turns_are_empty():
    assert cells.is_empty("")
    assert cells.is_empty(" \n")
    assert cells.is_empty([{"role": "user", "content": ""}])
    assert not cells.is_empty([{"role": "system", "content": ""}, {"role": "user", "content": "x"}])
