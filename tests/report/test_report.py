"""Tests of rlhf.report, rlhf.report.options and rlhf.report.figure: what the command writes, and what it refuses."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

from rlhf.cli import main
from rlhf.errors import ConfigError
from rlhf.report import ReportOptions, report, write_report


def test_a_run_gets_its_page_and_the_path_is_printed(planting, tmp_path, capsys):
    run = planting.plant(tmp_path)
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"results: {run / 'report.html'}\n"
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_two_runs_are_compared_in_a_file_of_ones_choice(planting, tmp_path):
    runs = [str(planting.plant(tmp_path / name)) for name in ("a", "b=c")]
    assert main(["report", *runs, "--output", str(tmp_path / "deep" / "both.html")]) == 0
    assert "Settings that differ" in (tmp_path / "deep" / "both.html").read_text()


@pytest.mark.slow
def test_the_same_files_give_the_same_page(planting, tmp_path):
    run = planting.plant(tmp_path)
    first = write_report(run)
    content, written = first.read_bytes(), first.stat().st_mtime_ns
    assert write_report(run).read_bytes() == content
    assert first.stat().st_mtime_ns == written  # nothing to do, so nothing is written
    first.write_bytes(b"\xff")
    assert write_report(run).read_bytes() == content


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["report", "{}/nowhere"], 2, "no such directory"),
        (["report", "{}"], 2, "no run here"),
        (["report"], 2, "RUN"),
        (["report", "{}", "{}", "--figure", "x.svg"], 2, "--figure shows one run, got 2"),
        (["report", "{}", "--figure", "x.svg", "--output", "y"], 2, "not both"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(tmp_path, capsys, arguments, status, message):
    assert main([argument.replace("{}", str(tmp_path)) for argument in arguments]) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_page_that_cannot_be_written_is_a_checkpoint_error(planting, tmp_path, capsys):
    run = planting.plant(tmp_path / "run")
    (tmp_path / "file").write_text("")
    assert main(["report", str(run), "--output", str(tmp_path / "file" / "page.html")]) == 4
    assert "page.html: cannot be written" in capsys.readouterr().err


def test_the_figure_is_one_drawing_with_its_own_colours(planting, tmp_path):
    run = planting.plant(tmp_path / "<run>")
    text = report(ReportOptions(runs=(run,), figure=tmp_path / "figure.svg")).read_text()
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg" and root.find(f"{space}title").text == "<run>: what became of the policy"
    titles = [each.text for each in root.iter(f"{space}text") if each.get("class") == "label"]
    assert titles == ["Score", "KL to the reference, nats per sequence", "Win rate against sft"]
    names = [each.text for each in root.iter(f"{space}text")]
    assert {"gold judge", "reward model"} <= set(names), "several judges have a legend"
    style = root.find(f"{space}style").text
    assert "prefers-color-scheme: dark" in style and "--s0" in style and ".chart .line" in style
    assert "url(" not in text and "href" not in text
    assert len(list(root.iter(f"{space}circle"))) == 6  # 50% at step 0, the end and the legend, for two judges


def test_a_policy_that_names_its_step_is_drawn_there(planting, tmp_path):
    content = planting.comparison()
    content["policies"]["step-000030"] = content["policies"]["ppo"]
    run = planting.plant(tmp_path, evaluation=content)
    planting.write_rows(run / "evaluate" / "step-000030.jsonl", [])
    root = ElementTree.fromstring(report(ReportOptions(runs=(run,), figure=tmp_path / "f.svg")).read_text())
    dots = [dot for dot in root.iter("{http://www.w3.org/2000/svg}circle") if dot.get("cx") != "150"]  # the legend's
    places = sorted({round(float(dot.get("cx"))) for dot in dots})
    assert len(places) == 6
    assert places[2] - places[0] == pytest.approx(places[4] - places[2], abs=2)  # 0, 30 and 60


def test_a_figure_needs_a_ppo_stage(planting, tmp_path):
    run = planting.plant(tmp_path)
    with pytest.raises(ConfigError, match="needs a PPO stage"):
        report(ReportOptions(runs=(run / "evaluate",), figure=tmp_path / "f.svg"))


@pytest.mark.slow
def test_the_report_needs_no_torch(planting, tmp_path):
    run = planting.plant(tmp_path)
    code = f"import sys; from rlhf.cli import main; main(['report', {str(run)!r}]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
