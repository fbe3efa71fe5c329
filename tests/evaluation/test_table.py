import pytest

from rlhf.evaluation.table import markdown_table, text_table

HEADER = ["policy", "score", "n"]
ROWS = [["sft", -0.12345, 4], ["ppo", 12.5, None]]


def test_a_text_table_is_aligned_with_numbers_to_the_right():
    assert text_table(HEADER, ROWS) == "\n".join(
        [
            "policy   score  n",
            "------  ------  -",
            "sft     -0.123  4",
            "ppo     12.500  -",
        ]
    )


def test_a_markdown_table_says_how_columns_are_aligned():
    assert markdown_table(HEADER, ROWS, digits=1) == "\n".join(
        ["| policy | score | n |", "| --- | ---: | ---: |", "| sft | -0.1 | 4 |", "| ppo | 12.5 | - |"]
    )


def test_a_pipe_or_a_backslash_does_not_break_a_markdown_table():
    assert markdown_table(["a|b"], [["c\\|d"]]).splitlines()[0] == "| a\\|b |"
    assert markdown_table(["x"], [["c\\|d"]]).splitlines()[2] == "| c\\\\\\|d |"


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("<img src=x> & </td>", "&lt;img src=x&gt; &amp; &lt;/td&gt;"),
        ("&lt;", "&amp;lt;"),
        ("[a](javascript:b) ![c](d)", "[a]\\(javascript:b) ![c]\\(d)"),
        ("https://a.b WWW.c.d", "https&#58;//a.b WWW&#46;c.d"),
        ("*a* _b_ `c` ~d~", "\\*a\\* \\_b\\_ \\`c\\` \\~d\\~"),
        ("0.5 [0.4, 0.6]", "0.5 [0.4, 0.6]"),
    ],
)
def test_a_markdown_cell_holds_no_html_no_link_and_no_formatting(cell, shown):
    assert markdown_table([cell], [[cell]]).splitlines() == [f"| {shown} |", "| --- |", f"| {shown} |"]
    assert text_table([cell], []).splitlines()[0] == cell


def test_control_characters_and_line_breaks_do_not_reach_the_terminal():
    for render in (text_table, markdown_table):
        table = render(["x"], [["\x1b[31mred\x07\u202e\nsecond\tline"]])
        assert len(table.splitlines()) == 3
        assert table.splitlines()[2].strip("| ") == "[31mred second line"


def test_a_table_without_rows_is_its_header():
    assert text_table(["a", "bc"], []) == "a  bc\n-  --"


@pytest.mark.parametrize("render", [text_table, markdown_table])
def test_a_row_of_another_length_is_refused(render):
    with pytest.raises(ValueError, match="row 1 has 2 cells, the header 3"):
        render(HEADER, [["a", 1, 2], ["b", 1]])
