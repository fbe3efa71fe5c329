"""Tests of benchmarks/rows.py."""

import json

import pytest

import rows
from options import parser
from sides import Figures


def figures(*runs, peak=2e9, problem=None):
    """One process for each list of round times."""

    def report(times):
        phases = [{"forward": time / 2} for time in times]
        return {"seconds": list(times), "phases": phases, "peak_bytes": peak, "versions": {"a": "1"}}

    return Figures(runs=[report(run) for run in runs], problem=problem)


def test_ratio_is_their_median_time_by_ours_without_the_warm_up():
    # theirs 4, 6, 20 -> 6; ours 2, 3, 1 -> 2; the first round of each process is its warm-up.
    row = rows.comparison("b", "n", figures([99, 4], [99, 6], [99, 20]), figures([50, 2], [50, 3], [50, 1], peak=1e9))
    assert row["ratio"] == 6 / 2
    assert row["ratios"] == [4 / 2, 6 / 3, 20 / 1]
    assert row["memory_ratio"] == 0.5
    assert row["theirs"]["phases"] == {"forward": 3.0}
    assert row["ours"]["seconds"] == 2 and row["ours"]["peak_gb"] == 1.0


@pytest.mark.parametrize("broken", ["theirs", "ours"])
def test_a_side_without_figures_gives_a_row_that_says_why(broken):
    sides = {"theirs": figures([9, 1]), "ours": figures([9, 1])}
    sides[broken] = figures(problem="no result within 5 s")
    row = rows.comparison("b", "n", **sides)
    assert row["ratio"] is None
    assert row["left_out"] == f"{broken}: no result within 5 s"
    assert "left out" in rows.markdown([row]) and "no result within 5 s" in rows.markdown([row])


def test_a_side_that_failed_later_keeps_its_figures():
    row = rows.comparison("b", "n", figures([9, 4], problem="status 1: killed"), figures([9, 2], [9, 2]))
    assert row["ratio"] == 2.0 and row["ratios"] == [2.0]
    assert row["left_out"] == "theirs: status 1: killed"


def test_saved_rows_are_a_json_list_with_a_ratio_each_and_are_shown_as_a_table(tmp_path, capsys):
    path = tmp_path / "rows.json"
    row = rows.comparison("bench", "mixed", figures([9, 4]), figures([9, 2]), goal={"at_least": 4, "aim": 5})
    rows.save([row, {**row, "name": "second"}], path)
    saved = json.loads(path.read_text())
    assert [found["ratio"] for found in saved] == [2.0, 2.0]
    rows.main([str(path)])
    shown = capsys.readouterr().out
    assert "| mixed | 4 s, 2.0 GB | 2 s, 2.0 GB | 2.00 | 2.00 to 2.00 | 4 / 5 | 1.00x |" in shown
    assert "- second: theirs forward 2.00; ours forward 1.00" in shown


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows.save([], None)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_saved_as_they_come_and_the_table_follows(tmp_path, capsys):
    path = tmp_path / "rows.json"
    measured = rows.comparison("bench", "mixed", figures([9, 4]), figures([9, 2]))
    left_out = rows.comparison("bench", "packed", figures(problem="killed"), figures([9, 2]))

    def found():
        yield measured
        assert [row["name"] for row in json.loads(path.read_text())] == ["mixed"]
        yield left_out

    with pytest.raises(SystemExit) as stopped:
        rows.collect(found(), parser("what"), path)
    assert stopped.value.code == 0
    assert [row["name"] for row in json.loads(path.read_text())] == ["mixed", "packed"]
    assert capsys.readouterr().out == rows.markdown([measured, left_out]) + "\n"
    with pytest.raises(SystemExit) as stopped:
        rows.collect([left_out], parser("what"), None)
    assert stopped.value.code == 1, "no ratio"


def test_what_fails_while_measuring_is_one_line_and_leaves_the_rows_before_it(tmp_path, capsys):
    path = tmp_path / "rows.json"

    def found():
        yield rows.comparison("bench", "mixed", figures([9, 4]), figures([9, 2]))
        raise OSError("disk on fire")

    with pytest.raises(SystemExit) as stopped:
        rows.collect(found(), parser("what"), path)
    assert stopped.value.code == 2 and len(json.loads(path.read_text())) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "disk on fire" in said.err and said.out == ""
