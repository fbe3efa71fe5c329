"""Tests of rlhf.api.data."""

from pathlib import Path
from typing import Any

import pytest

from rlhf.api.data import digest_of_items, given_prompts, given_source
from rlhf.config.shared import FittingSection
from rlhf.data.records import Example
from rlhf.errors import DataError

FITTING = FittingSection(max_length=9)
ROWS = [{"prompt": "A", "completion": "b"}, {"prompt": "C", "completion": "d"}]


def test_a_list_a_data_set_and_a_name_give_the_same_rows(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list(ROWS)
    table.to_json(tmp_path / "rows.jsonl")
    for given in (ROWS, tuple(ROWS), table, tmp_path / "rows.jsonl", str(tmp_path / "rows.jsonl")):
        source = given_source(given, "data", FITTING)
        assert [row.values for row in source.rows] == ROWS and source.fitting is FITTING
    assert given_source(ROWS, "data", FITTING).rows[1].location == "data:row 2"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "^data: 0 rows$"),
        (["a text"], r'^data:row 1: expected a mapping such as \{"prompt": ..., "completion": ...\}, found str$'),
        (
            {"train": ROWS},
            "^data: expected a list of mappings, a data set or a name, found dict - give one of its splits",
        ),
        ((row for row in ROWS), "found generator - each epoch shuffles all rows"),
        (None, "found NoneType"),
        ("no/such.jsonl", "no such file"),
    ],
)
def test_what_is_no_list_of_rows_is_one_line(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        given_source(given, "data", FITTING)


def test_prompts_are_named_or_given_and_a_lone_prompt_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "A"}\n')
    for named in (tmp_path / "rows.jsonl", str(tmp_path / "rows.jsonl")):
        assert [row.values for row in given_prompts(named, FITTING).rows] == [{"prompt": "A"}]
    assert [row.values["prompt"] for row in given_prompts(iter(["A", "C"]), FITTING).rows] == ["A", "C"]
    for name in ("no/such.jsonl", "no_such.csv"):
        with pytest.raises(DataError, match="no such file"):
            given_prompts(name, FITTING)
    for prompt in ("The film", "A", "Was it good?"):
        with pytest.raises(DataError, match="prompts: expected a list of texts.* put a single prompt into a list"):
            given_prompts(prompt, FITTING)


def test_a_table_is_refused() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(DataError, match=r"found DataFrame - .*to_dict\('records'\)"):
        given_source(pandas.DataFrame(ROWS), "data", FITTING)


def test_items_are_told_apart_by_what_is_learned_of_them() -> None:
    one, other = Example((1, 2), (False, True)), Example((1, 2), (False, False))
    assert digest_of_items([one]) == digest_of_items([Example((1, 2), (False, True))])
    assert len({digest_of_items(items) for items in ([one], [other], [one, other], [other, one])}) == 4


def test_a_streaming_data_set_is_gone_through_once_and_never_kept() -> None:
    datasets = pytest.importorskip("datasets")
    source = given_source(datasets.Dataset.from_list(ROWS).to_iterable_dataset(), "data", FITTING)
    assert not isinstance(source.rows, list) and [row.values for row in source.rows] == ROWS


def test_columns_are_named_as_the_settings_say(tmp_path: Path) -> None:
    named = FittingSection(column_map={"prompt": "question"})
    (tmp_path / "rows.jsonl").write_text('{"question": "A"}\n')
    for given in ([{"question": "A"}], tmp_path / "rows.jsonl"):
        assert [row.values for row in given_source(given, "data", named).rows] == [{"prompt": "A"}]
