"""Tests of rlhf.config.reading.overrides."""

from pathlib import Path

import pytest

from rlhf.config.reading.overrides import apply_overrides, inline_references, is_override, parse_overrides
from rlhf.errors import ConfigError


def _apply(mapping: dict[str, object], *arguments: str) -> dict[str, object]:
    return apply_overrides(mapping, parse_overrides(arguments))


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("a=1e-5", {"a": 1e-5}),
        ("--a=1", {"a": 1}),
        ("a.b.c=x=y", {"a": {"b": {"c": "x=y"}}}),
        ("a=", {"a": None}),
        ("a=[1, {kind: function, path: 'my.py:score'}]", {"a": [1, {"kind": "function", "path": "my.py:score"}]}),
        ("a=my.py:score", {"a": "my.py:score"}),
    ],
)
def test_an_override_is_parsed_as_yaml(argument: str, expected: dict[str, object]) -> None:
    assert _apply({}, argument) == expected


def test_overrides_reach_sections_list_items_and_null_and_the_last_one_wins() -> None:
    mapping: dict[str, object] = {"ppo": {"rewards": [{"weight": 1.0}, {"weight": 1.0}], "kl": 1, "lora": None}}
    changed = _apply(mapping, "ppo.rewards.1.weight=2", "ppo.kl=2", "ppo.kl=3", "ppo.lora.r=8")
    assert changed == {"ppo": {"rewards": [{"weight": 1.0}, {"weight": 2}], "kl": 3, "lora": {"r": 8}}}
    assert mapping == {"ppo": {"rewards": [{"weight": 1.0}, {"weight": 1.0}], "kl": 1, "lora": None}}


def test_every_override_that_cannot_be_applied_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        _apply({"a": 1, "b": [1]}, "a.x=1", "b.1=2", "b.x=2", "c.0.y=1")
    assert str(caught.value).splitlines() == [
        "config error: command line: a.x: a holds 1, not a section: set a as a whole",
        "config error: command line: b.1: b holds 1 items, counted from 0",
        "config error: command line: b.x: b is a list: give an index (b.0) or set it as a whole",
        "config error: command line: c.0.y: there is no list at c: set c=[...] as a whole",
    ]


def test_every_argument_that_is_no_override_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_overrides(["a", "b=[1", "=1", "c=!!python/none x"])
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert lines[0] == "config error: command line: a: not of the form path.to.key=value"
    assert lines[1].startswith("config error: command line: b: line 1: not YAML")
    assert "!!python/none is not allowed" in lines[3]


@pytest.mark.parametrize("argument", ["a=1", "--a.b=1", "rewards.0.weight=2", "a=", "a=x y\nz"])
def test_an_override_is_recognised(argument: str) -> None:
    assert is_override(argument)


@pytest.mark.parametrize("argument", ["a", "--a", "/tmp/a=b", "-a=1", "a..b=1", "1=2"])
def test_what_is_no_override_is_not_taken_for_one(argument: str) -> None:
    assert not is_override(argument)


def test_a_section_that_names_a_file_is_read_from_it(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text("steps: 3\n")
    mapping: dict[str, object] = {"sft": "sft.yaml", "ppo": {"steps": 1}, "output_dir": "x.yaml"}
    inlined = inline_references(mapping, ["sft", "ppo", "evaluate"], tmp_path)
    assert inlined == {"sft": {"steps": 3}, "ppo": {"steps": 1}, "output_dir": "x.yaml"}
    assert mapping["sft"] == "sft.yaml"


def test_every_section_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        inline_references({"sft": "a.yaml", "ppo": "b.yaml"}, ["sft", "ppo"], tmp_path)
    assert [line.partition(": cannot")[0][-6:] for line in str(caught.value).splitlines()] == ["a.yaml", "b.yaml"]


def test_a_path_of_thousands_of_keys_is_refused_in_one_short_line() -> None:
    with pytest.raises(ConfigError, match="has 3000 keys, and no setting is inside of so many sections") as caught:
        parse_overrides([".".join(["a"] * 3000) + "=1"])
    assert len(str(caught.value)) < 200
