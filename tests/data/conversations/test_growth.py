"""Tests of rlhf.data.conversations.growth: what is told before is never less than what comes out."""

from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlhf.data.conversations.extent import written
from rlhf.data.conversations.growth import FILTERS, METHODS, of_operator

LIST = [1, "two", {"three": [4, None]}]
METHOD_CASES: dict[str, tuple[Any, ...]] = {
    "center": ("ab", 900),
    "expandtabs": ("a\tb\t", 90),
    "format": ("{:9}{}{:{}}", "x" * 50, "y", "z", "800"),
    "format_map": ("{a}{a:99}", {"a": "x" * 50}),
    "join": ("--" * 50, ["a", "b", "c"]),
    "ljust": ("ab", 900),
    "replace": ("banana", "a", "x" * 90),
    "rjust": ("ab", 900),
    "rsplit": ("a b c" * 9, " "),
    "split": ("a b c" * 9,),
    "splitlines": ("a\nb\n" * 9,),
    "to_bytes": (1, 900, "big"),
    "translate": ("banana", {97: "x" * 90}),
    "zfill": ("7", 900),
}
FILTER_CASES: dict[str, tuple[Any, ...]] = {
    "batch": (LIST, 400, "fill"),
    "center": ("ab", 900),
    "format": ("%s%99d%*d", "x" * 50, 7, 800, 7),
    "indent": ("a\nb\nc", 90, True),
    "join": (LIST, "--" * 50),
    "list": ("banana",),
    "pprint": (LIST * 20,),
    "replace": ("banana", "", "x" * 90),
    "round": (5, 3),
    "slice": (LIST, 400, "fill"),
    "string": (LIST,),
    "sum": ([[1, 2], [3]] * 9, None, []),
    "tojson": (LIST, 90),
    "truncate": ("banana " * 90, 200, True, "x" * 90),
    "urlize": ("http://a.bc http://d.ef", None, False, None, "x" * 90),
    "wordwrap": ("banana " * 9, 5, True, "x" * 90),
    "xmlattr": ({"a": "<<<<", "b": "&"},),
}


def size(value: Any) -> int:
    """The characters of a text; the elements of a list."""
    return len(value) if isinstance(value, str | bytes) else len(list(value)) if isinstance(value, list) else 1


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_no_more_than_was_told(name: str) -> None:
    owner, *given = METHOD_CASES[name]
    assert size(getattr(owner, name)(*given)) <= METHODS[name](owner, *given)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_gives_no_more_than_was_told(name: str) -> None:
    environment = ImmutableSandboxedEnvironment()
    value, *given = FILTER_CASES[name]
    context = environment.from_string("").new_context()
    result = environment.call_filter(name, value, given, context=context)
    told = {"tojson": (value, False, 90)}.get(name, (value, *given))
    assert size(list(result) if name in ("batch", "slice") else result) <= FILTERS[name](*told)


@pytest.mark.parametrize(
    ("left", "operator", "right"),
    [("ab", "+", "cd"), ("ab", "*", 90), (90, "*", "ab"), (LIST, "*", 90), ("%s%99d", "%", ("x" * 50, 7))],
)
def test_an_operator_gives_no_more_than_was_told(left: Any, operator: str, right: Any) -> None:
    result = {"+": lambda: left + right, "*": lambda: left * right, "%": lambda: left % right}[operator]()
    assert size(result) <= of_operator(operator, left, right)


def test_what_is_held_many_times_is_written_many_times_and_measured_once() -> None:
    laughs: list[Any] = ["ha"]
    for _ in range(10):
        laughs = [laughs, laughs]
    assert len(str(laughs)) <= written(laughs)
    for _ in range(60):
        laughs = [laughs, laughs]
    assert written(laughs) > 2**70


def test_what_holds_itself_is_measured() -> None:
    held: dict[str, Any] = {"a": 1}
    held["self"] = held
    assert written(held) >= len(str(held))


@pytest.mark.parametrize("text", ["a" * 1000, "a b\n" * 250])
def test_ordinary_operations_are_not_told_to_be_large(text: str) -> None:
    assert METHODS["replace"](text, "b", "cc") < 3000
    assert METHODS["split"](text, "</think>") < 2000
    assert METHODS["join"]("\n", [text, text]) < 20_000
    assert FILTERS["tojson"]({"role": "user", "content": text}, False, 4) < 20_000
