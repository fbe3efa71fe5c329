import gc

import pytest

from rlhf.data.intake import Outcome, dropped_as_empty, prepared, refused_as_empty
from rlhf.data.records import Row
from rlhf.errors import DataError

ROWS = [Row({}, f"f.jsonl:{number}") for number in range(1, 5)]


def test_every_row_is_counted_once_and_cut_rows_are_among_the_kept():
    outcomes = dict(
        zip(
            [row.location for row in ROWS],
            [Outcome("a", "kept"), Outcome("b", "cut"), Outcome(None, "dropped_long"), Outcome(None, "dropped_equal")],
            strict=True,
        )
    )
    result = prepared(ROWS, lambda row: outcomes[row.location])
    assert result.items == ["a", "b"]
    assert result.counts == {
        "read": 4, "kept": 2, "cut": 1, "dropped_long": 1, "dropped_empty": 0, "dropped_equal": 1,
    }  # fmt: skip


@pytest.mark.slow
def test_rows_are_let_go_as_soon_as_they_are_records():
    numbers = []

    def rows():
        for number in range(50):
            numbers.append(sum(type(each) is Row and each.location.startswith("big") for each in gc.get_objects()))
            yield Row({"text": "x" * number}, f"big:{number}")

    assert prepared(rows(), lambda row: Outcome(len(row.values["text"]), "kept")).items == list(range(50))
    assert max(numbers) <= 2


def test_no_row_left_is_an_error_with_the_counts():
    with pytest.raises(DataError, match=r"0 rows left: all 4 rows from f.jsonl:1 on were dropped \(dropped_long 4, "):
        prepared(ROWS, lambda row: Outcome(None, "dropped_long"))


def test_empty_rows_are_an_error_by_line_or_skipped():
    with pytest.raises(DataError, match="f.jsonl:1: empty text, prompt, completion or message - fix it, or set on_"):
        refused_as_empty(["x", " "], ROWS[0], "error")
    assert refused_as_empty(["x", " "], ROWS[0], "skip")
    assert not refused_as_empty(["x", "y"], ROWS[0], "error")
    assert dropped_as_empty(ROWS[0], "skip").fate == "dropped_empty"
