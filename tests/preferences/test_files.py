"""Tests of rlhf.preferences.files."""

import json
from datetime import date

import pytest

from rlhf.errors import ConfigError, DataError
from rlhf.preferences.files import checked_output, json_line


def test_another_name_of_the_input_is_the_input(tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text("{}\n")
    (tmp_path / "link.jsonl").symlink_to(source)
    (tmp_path / "hard.jsonl").hardlink_to(source)
    for name in ("rows.jsonl", "link.jsonl", "hard.jsonl", "../" + tmp_path.name + "/rows.jsonl"):
        with pytest.raises(ConfigError, match="is the file that is read"):
            checked_output(str(tmp_path / name), str(source))
    assert checked_output(str(tmp_path / "other.jsonl"), str(source)) == tmp_path / "other.jsonl"
    assert checked_output(str(source), None) == source


def test_a_directory_is_no_output(tmp_path):
    with pytest.raises(ConfigError, match="is a directory - name a file in it"):
        checked_output(str(tmp_path), None)


@pytest.mark.parametrize("text", ["plain", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "half \ud800 of a pair", "a\nb"])
def test_a_line_holds_any_text_and_is_one_line_of_utf_8(text):
    line = json_line({"a": text}, "here")
    assert json.loads(line.encode("utf-8")) == {"a": text} and line.count("\n") == 1


def test_a_cell_that_json_cannot_hold_is_refused_by_its_place():
    with pytest.raises(DataError, match="f.parquet:row 3: column when holds a date, .* convert it to text"):
        json_line({"prompt": "p", "when": date(2024, 1, 1)}, "f.parquet:row 3")
