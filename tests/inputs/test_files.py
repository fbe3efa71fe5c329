"""Files as people have them: one JSON array, compressed, cut off, misnamed."""

import bz2
import gzip
import itertools
import json
import lzma
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.data.reading import json_array
from rlhf.data.reading.rows import read_rows, stream_rows
from rlhf.errors import DataError

ROWS = [{"prompt": f"caf\xe9 {number}", "completion": 'a "b" ] }, {'} for number in range(3)]
PACKED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, "zstd", asbytes=True),
}
WRITTEN = {
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    ".json": json.dumps(ROWS, ensure_ascii=False),
    ".csv": "prompt,completion\n" + "".join(f'caf\xe9 {number},"a ""b"" ] }}, {{"\n' for number in range(3)),
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("packing", PACKED)
def test_a_compressed_file_has_the_rows_and_places_of_the_plain_one(tmp_path: Path, kind: str, packing: str) -> None:
    plain = read_rows(write(tmp_path / f"a{kind}", WRITTEN[kind]))
    packed = read_rows(write(tmp_path / f"a{kind}{packing}", PACKED[packing](WRITTEN[kind].encode())))
    assert [row.values for row in packed] == [row.values for row in plain] == ROWS
    assert [row.location.replace(packing, "") for row in packed] == [row.location for row in plain]


def test_pieces_of_compressed_files_may_follow_each_other(tmp_path: Path) -> None:
    for packing, pack in PACKED.items():
        twice = pack(WRITTEN[".jsonl"].encode()) * 2
        assert len(read_rows(write(tmp_path / f"a.jsonl{packing}", twice))) == 6, packing


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_damaged_compressed_file_is_one_line(tmp_path: Path, packing: str, kind: str) -> None:
    whole = PACKED[packing](WRITTEN[kind].encode() * 50)
    for content in (whole[: len(whole) // 2], b"not compressed at all", whole[:-12] + b"\0" * 12):
        path = write(tmp_path / f"a{kind}{packing}", content)
        with pytest.raises(DataError, match=re.escape(f"{path}:")) as caught:
            read_rows(path)
        assert "\n" not in str(caught.value)


def test_other_packed_kinds_are_named(tmp_path: Path) -> None:
    for name, message in (
        ("a.parquet.gz", r"parquet files are compressed inside"),
        ("a.txt.gz", r"unknown kind of file '.gz'; expected one of .jsonl, .*also with .gz, .bz2, .xz, .zst"),
        ("a.gz", r"unknown kind of file"),
        ("a.jsonl.zip", r"unknown kind of file '.zip'"),
    ):
        with pytest.raises(DataError, match=message):
            read_rows(write(tmp_path / name, b"x"))


ARRAYS = {
    "on one line": json.dumps(ROWS),
    "over many lines": json.dumps(ROWS, indent=4, ensure_ascii=False),
    "with a byte order mark and blanks": "\ufeff\n\n [" + ",\r\n".join(json.dumps(row) for row in ROWS) + "\n]\n\n",
}


@pytest.mark.parametrize("layout", ARRAYS)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_an_array_is_read_whatever_its_layout(
    tmp_path: Path, layout: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "CHUNK_BYTES", chunk)
    rows = read_rows(write(tmp_path / "a.json", ARRAYS[layout]))
    assert [row.values for row in rows] == ROWS
    assert rows[2].location == f"{tmp_path / 'a.json'}:row 3"


def test_a_json_file_may_hold_one_object_a_line(tmp_path: Path) -> None:
    assert read_rows(write(tmp_path / "a.json", WRITTEN[".jsonl"]))[2].location.endswith("a.json:3")


BAD_ARRAYS = [
    ('[\n{"a": 1},\n{"a": }\n]', r"a.json:3: malformed JSON: Expecting value at column 7"),
    ('[\n  {"a": 1}\n  {"a": 2}\n]', r"a.json:3: expected , or \] after row 1, found '\{' at column 3"),
    ('[{"a": 1}, {"a": 2}', r"a.json: the array is not closed - is the file whole\?"),
    ('[{"a": 1}, {"a": "cut o', r"a.json:1: malformed JSON: Unterminated string"),
    ('[{"a": 1}, ]', r"a.json:1: malformed JSON: .* at column 1[23]"),
    ('[{"a": 1}, 3]', r"a.json:row 2: expected a JSON object, found int"),
    ('[{"a": 1}]\n{"a": 2}', r"a.json:2: something follows the end of the array"),
    ("[]", r"a.json: 0 rows"),
    ("", r"a.json: 0 rows"),
    (b'[{"a": "ok"},\n {"a": "caf\xe9"}]', r"a.json: byte 25 \(0xe9\) is not UTF-8 .*iconv"),
    (b'[{"a": "caf\xc3', r"a.json: byte 11 \(0xc3\) is not UTF-8"),
    ('[{"a": ' + "9" * 5000 + "}]", r"a.json:1: JSON that cannot be read"),
    ("[" * 100_000, r"a.json:1: (JSON that cannot be read|malformed JSON)"),
]


@pytest.mark.parametrize(("content", "message"), BAD_ARRAYS)
@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_bad_array_is_refused_by_line(
    tmp_path: Path, content: str | bytes, message: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "CHUNK_BYTES", chunk if len(content) < 1000 else 1 << 20)
    with pytest.raises(DataError, match=message) as caught:
        read_rows(write(tmp_path / "a.json", content))
    assert "\n" not in str(caught.value)


def test_an_element_that_never_ends_is_refused_before_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(json_array, "CHUNK_BYTES", 10)
    with pytest.raises(DataError, match=r"a.json:1: a row of more than 100 bytes - is the array closed\?"):
        read_rows(write(tmp_path / "a.json", '[{"a": "' + "x" * 1000 + '"}]'))


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.json.zst"])
def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"{number} " + "x" * 1000} for number in range(20_000)]
    content = json.dumps(rows) if ".json" in name and "jsonl" not in name else "\n".join(map(json.dumps, rows))
    pack = PACKED.get(Path(name).suffix, bytes)
    path = write(tmp_path / name, pack(content.encode()))
    del rows, content
    tracemalloc.start()
    count = sum(1 for _ in stream_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000 and peak < 8_000_000  # the file holds 20 MB


def test_rows_that_are_lists_of_turns_are_conversations(tmp_path: Path, taken: Callable) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    array = read_rows(write(tmp_path / "a.json", json.dumps([turns, turns])))
    lines = read_rows(write(tmp_path / "a.jsonl", f"{json.dumps(turns)}\n{json.dumps(turns)}\n"))
    expected = taken("sft", {"conversations": turns}).items
    assert [taken("sft", row.values).items for row in array] == [expected] * 2
    assert [taken("sft", row.values).items for row in lines] == [expected] * 2


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=100) | st.text(alphabet='{}[]":,a1\n\\u0d8', max_size=60).map(str.encode))
def test_any_bytes_give_rows_or_a_data_error(tmp_path: Path, content: bytes) -> None:
    for name, prefix in itertools.product(("f.json", "f.json.gz", "f.jsonl.zst"), (b"", b"[")):
        pack = PACKED.get(Path(name).suffix, bytes)
        for written in (prefix + content, pack(prefix + content)):
            try:
                read_rows(write(tmp_path / name, written))
            except DataError as error:
                assert name in str(error)  # noqa: PT017 - rows are as good as an error


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.integers(), max_size=3), min_size=1),
    chunk=st.integers(1, 20),
    indent=st.none() | st.integers(0, 3),
)
def test_any_array_gives_its_rows_in_pieces_of_any_size(
    tmp_path: Path, rows: list[dict[str, object]], chunk: int, indent: int | None
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_array, "CHUNK_BYTES", chunk)
        path = write(tmp_path / "a.json", json.dumps(rows, indent=indent))
        assert [row.values for row in read_rows(path)] == rows
