"""Tests of rlhf.printable."""

import pytest

from rlhf.printable import escaped_markdown, one_line, printable, visible


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[2Jred\r\x00", "\u241b[2Jred\u240d\u2400"),
        ("abc\u202edcba\u2066 \x7f\x9b \ud83d", "abc[U+202E]dcba[U+2066] [U+007F][U+009B] [U+D83D]"),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
    ],
)
def test_control_characters_become_visible_and_all_else_is_kept(text: str, expected: str) -> None:
    assert visible(text) == expected
    assert printable(visible(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<img src=x onerror=a>", "&lt;img src=x onerror=a&gt;"),
        ("write to a.b@c.example", "write to a.b&#64;c.example"),
        ("[a](javascript:b) www.x.y http://z", "[a]\\(javascript:b) www&#46;x.y http&#58;//z"),
        ("a|b*c_d`e~", "a\\|b\\*c\\_d\\`e\\~"),
    ],
)
def test_markdown_shows_a_text_as_it_is(text: str, expected: str) -> None:
    assert escaped_markdown(text) == expected


def test_one_line_holds_no_breaks_and_no_control_characters() -> None:
    assert one_line("a\n\tb\x1b[2J  c") == "a b[2J c"
