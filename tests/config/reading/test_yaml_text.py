"""Tests of rlhf.config.reading.yaml_text."""

import contextlib
import datetime
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.config.reading.yaml_text import format_yaml, parse_yaml, read_mapping
from rlhf.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        ("+3e2", 300.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("-.inf", float("-inf")),
        ("12", 12),
        ("0.1", 0.1),
        ("true", True),
        ("~", None),
        ("", None),
        ("'1e-5'", "1e-5"),
        ("1e-5x", "1e-5x"),
        ("e5", "e5"),
        ("2026-11-05", "2026-11-05"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_plain_values_are_read(text: str, expected: object) -> None:
    value = parse_yaml(text)
    assert value == expected
    assert type(value) is type(expected)


def test_a_date_stays_text() -> None:
    assert not isinstance(parse_yaml("2026-11-05"), datetime.date)


def test_each_key_that_stands_twice_is_refused_with_its_lines() -> None:
    with pytest.raises(ValueError, match="appears twice") as caught:
        parse_yaml("a: 1\nb:\n  c: 1\n  c: 2\na: 2\n")
    assert set(str(caught.value).splitlines()) == {
        'line 4: "c" appears twice, first in line 3',
        'line 5: "a" appears twice, first in line 1',
    }


def test_a_merge_may_repeat_a_key_and_shared_values_are_separate() -> None:
    value = parse_yaml("base: &base {a: 1, b: [1]}\nmore:\n  <<: *base\n  a: 2\nsame: *base\n")
    assert value == {"base": {"a": 1, "b": [1]}, "more": {"a": 2, "b": [1]}, "same": {"a": 1, "b": [1]}}
    assert isinstance(value, dict)
    assert value["base"] is not value["same"]
    assert value["base"]["b"] is not value["more"]["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch MARKER']", "!!python/object/apply:os.system is not allowed"),
        ("!!python/name:os.system", "!!python/name:os.system is not allowed"),
        ("a: !mine 1", "!mine is not allowed"),
        ("a: !!binary aGk=", "only text, numbers"),
        ("a: !!set {x, y}", "only text, numbers"),
        ("a: [1, 2", "line 1: not YAML"),
        ("a: b: c", "line 1: not YAML"),
        ("a: &x\n  b: *x", "Circular reference"),
        ("a: \x00", "not YAML"),
        ("on: 1", 'line 1: the key "on" is not text'),
        ("? [a]\n: 1", "line 1: the key .* is not text"),
        ("a: 1\n---\nb: 2", "not YAML"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_plain_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_objects_in_yaml_are_not_built(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(ValueError, match="never builds objects"):
        parse_yaml(f"a: !!python/object/apply:os.mkdir ['{marker}']")
    assert not marker.exists()


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES)
def test_what_is_written_is_read_back_equal(value: object) -> None:
    assert parse_yaml(format_yaml(value)) == value


@given(st.from_regex(r"[-+0-9.eE_:]{1,8}", fullmatch=True))
def test_text_that_looks_like_a_number_stays_text(text: str) -> None:
    assert parse_yaml(format_yaml({"a": text})) == {"a": text}


@given(st.text())
def test_any_text_is_read_or_refused_with_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_yaml(text)


def test_a_file_may_start_with_a_byte_order_mark_and_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_mapping(path) == {"a": 1}
    path.write_bytes(b"# nothing\n")
    assert read_mapping(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff", r"x\.yaml: not UTF-8 \(byte 3\)"),
        (b"- a\n", r"x\.yaml: must hold keys and values, found a list"),
        (b"a: 1\na: 2\n", r'x\.yaml: line 2: "a" appears twice'),
    ],
)
def test_a_file_that_holds_no_mapping_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_mapping(path)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing.yaml: cannot be read: no such file"):
        read_mapping(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        read_mapping(tmp_path)


def test_aliases_that_stand_for_billions_of_values_are_refused_at_once() -> None:
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"aliases \(\*name\) stand for more than 1,000,000 values"):
        parse_yaml("\n".join(lines))
    assert time.monotonic() - begun < 5


def test_an_alias_may_stand_for_a_section_and_never_for_itself() -> None:
    assert parse_yaml("a: &x {b: [1, 2]}\nc: *x\nd: {<<: *x}") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": {"b": [1, 2]},
    }
    with pytest.raises(ValueError, match=".*"):
        parse_yaml("a: &x [*x]")
