"""Tests of rlhf.lab.page."""

import json
from dataclasses import replace

import pytest

from rlhf.lab.page import Result, circumstances, markdown, table, write_page
from rlhf.lab.section import Curve, Figure, Section, Settings, Table

FIGURE = Figure(name="curve", title="A curve", x_label="x", y_label="y", curves=[Curve(label="c", x=[1.0], y=[2.5])])
SECTION = Section(
    name="first",
    title="The first",
    statement="It grows.",
    formula="y = x\ny = 2 x",
    method="Ten seeds.",
    tables=[Table(title="Numbers", header=["KL(a || b)", "y"], rows=[["1", "2.5 [2, 3]"]])],
    figures=[FIGURE],
    finding="It does.",
)
RESULT = Result(section=SECTION, seconds=1.25)


def test_the_page_shows_statement_formula_method_numbers_figure_and_finding_in_this_order():
    page = markdown([RESULT], Settings(seed=7), {"machine": "an abacus", "date": "2026-01-02"})
    parts = [
        "## 1. The first",
        "**The lecture says.** It grows.",
        "    y = x\n    y = 2 x",
        "**Method.** Ten seeds.",
        "Numbers:\n\n| KL(a \\|\\| b) | y |\n| --- | --- |\n| 1 | 2.5 [2, 3] |",
        "![A curve](figures/curve.svg)",
        "**Finding.** It does.",
        "- machine: an abacus\n- date: 2026-01-02\n- seed: 7",
        "| first | 1.2 |",
    ]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)
    assert "quick run" not in page


def test_a_quick_page_says_so():
    assert "A quick run, with tiny sizes" in markdown([RESULT], Settings(quick=True), {})


def test_a_table_without_a_title_begins_with_its_header():
    assert table(Table(header=["a"], rows=[])) == "| a |\n| --- |"


def test_page_figures_and_numbers_are_written(tmp_path):
    write_page(tmp_path, [RESULT], Settings(seed=3, quick=True))
    assert "The first" in (tmp_path / "lab.md").read_text()
    assert (tmp_path / "figures/curve.svg").read_text().startswith("<?xml")
    content = json.loads((tmp_path / "results.json").read_text())
    assert (content["seed"], content["quick"], content["experiments"][0]["seconds"]) == (3, True, 1.25)
    assert content["experiments"][0]["section"]["figures"][0]["curves"][0]["y"] == [2.5]
    assert content["date"] and "torch" in content["versions"] and "thread" in content["machine"]


@pytest.mark.slow
def test_figures_of_experiments_that_ran_before_are_left_as_they_are(tmp_path):
    other = replace(SECTION, name="second", figures=[replace(FIGURE, name="other")])
    write_page(tmp_path, [RESULT], Settings())
    (tmp_path / "figures/curve.svg").write_text("as it was")
    write_page(tmp_path, [RESULT, Result(section=other, seconds=1.0)], Settings())
    assert (tmp_path / "figures/curve.svg").read_text() == "as it was"
    assert (tmp_path / "figures/other.svg").is_file()
    assert "figures/curve.svg" in (tmp_path / "lab.md").read_text()


def test_two_figures_of_one_name_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="two figures have one name"):
        write_page(tmp_path, [RESULT, RESULT], Settings())
    assert not list(tmp_path.iterdir())


def test_circumstances_name_machine_versions_and_date():
    assert set(circumstances()) == {"machine", "versions", "date"}


def test_a_cell_is_no_html_and_no_link() -> None:
    shown = table(Table(header=["<b>"], rows=[["<script>x</script> a@b.c"]]))
    assert "<" not in shown and "@" not in shown and "&lt;script&gt;" in shown
