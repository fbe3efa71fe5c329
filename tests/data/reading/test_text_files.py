import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.data.reading import text_files
from rlhf.data.reading.text_files import read_csv, read_jsonl, write_jsonl
from rlhf.errors import DataError


def write(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_jsonl_rows_carry_file_and_line_and_blank_lines_are_passed_over(tmp_path):
    path = write(tmp_path, "a.jsonl", b'{"prompt": "x"}\n\n{"prompt": "y"}')
    rows = list(read_jsonl(path))
    assert [row.values for row in rows] == [{"prompt": "x"}, {"prompt": "y"}]
    assert [row.location for row in rows] == [f"{path}:1", f"{path}:3"]


def test_rows_that_were_written_are_read_again(tmp_path):
    rows = [{"prompt": "two\nlines", "label": 1}, {"prompt": "caf\xe9", "label": None}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert [row.values for row in read_jsonl(Path(path))] == rows


def test_a_byte_order_mark_is_accepted(tmp_path):
    assert next(read_jsonl(write(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"text": "x"}\n'))).values == {"text": "x"}
    assert next(read_csv(write(tmp_path, "a.csv", b"\xef\xbb\xbftext\nx\n"))).values == {"text": "x"}


def test_csv_cells_may_hold_line_breaks_and_rows_are_located_at_their_first_line(tmp_path):
    path = write(tmp_path, "a.csv", b'prompt,completion\n"one\ntwo",x\n"say ""hi""",y\n')
    rows = list(read_csv(path))
    assert [row.values["prompt"] for row in rows] == ["one\ntwo", 'say "hi"']
    assert [row.location for row in rows] == [f"{path}:2", f"{path}:4"]


BAD_FILES = [
    ("a.jsonl", b'{"a": 1}\n{"a": }\n', r"a.jsonl:2: malformed JSON at column 7"),
    ("a.jsonl", b"[\n{}\n]", r"a.jsonl:1: malformed JSON .* one object per line"),
    ("a.jsonl", b"[1, 2]\n", r"a.jsonl:1: expected a JSON object, found list"),
    ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", r"a.jsonl:1: JSON that cannot be read"),
    ("a.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", r"a.jsonl:1: (JSON that cannot be read|malformed JSON)"),
    ("a.jsonl", b'{"a": "ok"}\n{"a": "caf\xe9"}\n', r"a.jsonl:2: byte 22 \(0xe9\) is not UTF-8 .*iconv"),
    ("a.csv", b"text\ncaf\xe9\n", r"a.csv:2: byte 8 \(0xe9\) is not UTF-8"),
    ("a.csv", b"a,b\n1,2\n1,2,3\n", r"a.csv:3: expected 2 cells, as in the header, found 3"),
    ("a.csv", b"a,b\n1\n", r"a.csv:2: expected 2 cells, as in the header, found 1"),
    ("a.csv", b"a,a\n1,2\n", r"a.csv:1: the header names a column twice"),
    ("a.csv", b"a,\n1,2\n", r"a.csv:1: the header has a column without a name"),
    ("a.csv", b'a\nx\n"open\nand open\n', r"a.csv:3: malformed CSV"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_a_bad_file_is_refused_by_file_and_line(tmp_path, name, content, message):
    read = read_jsonl if name.endswith("jsonl") else read_csv
    with pytest.raises(DataError, match=message):
        list(read(write(tmp_path, name, content)))


def test_a_huge_line_is_refused_and_names_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 100)
    path = write(tmp_path, "a.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 100 + b'"}\n')
    with pytest.raises(DataError, match=re.escape(f"{path}:2: line of more than 100 bytes")):
        list(read_jsonl(path))


def test_a_line_of_just_over_ten_million_bytes_is_refused(tmp_path):
    with pytest.raises(DataError, match="more than 10000000 bytes"):
        list(read_jsonl(write(tmp_path, "a.jsonl", b" " * 10_000_001)))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(alphabet='{}[]":,a\n\\u0d8', max_size=60).map(str.encode))
def test_any_bytes_give_rows_or_a_data_error(tmp_path, content):
    for name, read in (("fuzz.jsonl", read_jsonl), ("fuzz.csv", read_csv)):
        try:
            list(read(write(tmp_path, name, content)))
        except DataError as error:
            assert name in str(error)  # noqa: PT017 - rows are as good as an error
