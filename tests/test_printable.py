"""Tests of rlhf.printable."""

import pytest

from rlhf.printable import printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b]52;c;aGk=\x07done", "]52;c;aGk=done"),
        ("\x1b[2Jred\x9b31m", "[2Jred31m"),
        ("one\rtwo\x00\x7f", "onetwo"),
        ("abc\u202edcba\u2066", "abcdcba"),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
        ("half \ud83d of a pair", "half  of a pair"),
    ],
)
def test_control_characters_are_dropped_and_all_else_is_kept(text: str, expected: str) -> None:
    assert printable(text) == expected
