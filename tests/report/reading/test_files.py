"""Tests of rlhf.report.reading.files."""

import pytest

from rlhf.errors import CheckpointError
from rlhf.report.reading.files import json_lines, json_object


def test_a_last_line_that_is_still_written_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert json_lines(path) == [{"step": 1}, {"step": 2}]
    assert json_lines(tmp_path / "missing") == [] and json_object(tmp_path / "missing") == {}


@pytest.mark.parametrize(
    ("text", "message"), [('{"a": 1}\n{"b\n{"c": 1}\n', ":2: not JSON"), ("[1]\n", ":1: expected a JSON object")]
)
def test_a_broken_line_is_named(tmp_path, text, message):
    path = tmp_path / "samples.jsonl"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        json_lines(path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_object_is_named(tmp_path, text):
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"comparison\.json: "):
        json_object(tmp_path / "comparison.json")


@pytest.mark.parametrize("text", ["[" * 20_000 + "\n{}\n", "9" * 5000 + "\n{}\n"])
def test_json_that_no_reader_takes_is_a_checkpoint_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    for read in (json_lines, json_object):
        with pytest.raises(CheckpointError, match=r"a\.json"):
            read(tmp_path / "a.json")
