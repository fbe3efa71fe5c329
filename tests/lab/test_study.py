"""Tests of rlhf.lab: the verb from the command line to the page."""

import importlib.util
import json
import sys
from types import ModuleType

import pytest

from rlhf.cli import main
from rlhf.lab import experiments
from rlhf.lab.experiments import EXPERIMENTS
from rlhf.lab.section import Section

TABULAR = ["variance", "stability", "chain_exploration"]


@pytest.fixture
def tiny(monkeypatch):
    """Put two experiments in the place of all; returns the settings that they were given."""
    seen = []

    def make(name, fails=False):
        def run(settings):
            seen.append((name, settings))
            if fails:
                raise ZeroDivisionError("by zero")
            return Section(name=name, title=name, statement="s", method="m", finding=f"{name} agrees")

        module = ModuleType(f"tiny_{name}")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"tiny_{name}", module)
        return f"tiny_{name}"

    modules = {"variance": make("variance"), "stability": make("stability"), "broken": make("broken", fails=True)}
    for name in list(EXPERIMENTS):
        monkeypatch.delitem(experiments.EXPERIMENTS, name)
    for name, module in modules.items():
        monkeypatch.setitem(experiments.EXPERIMENTS, name, module)
    return seen


@pytest.mark.slow
def test_a_quick_study_of_the_tabular_experiments_writes_the_whole_page(tmp_path, capsys):
    place = tmp_path / "lab"
    assert main(["lab", "--quick", "--output-dir", str(place), "--only", *TABULAR]) == 0
    page = (place / "lab.md").read_text()
    assert capsys.readouterr().out.endswith(f"results: {place / 'lab.md'}\n")
    assert page.count("**The lecture says.**") == page.count("**Finding.**") == 3
    figures = sorted(path.stem for path in (place / "figures").iterdir())
    assert figures == ["chain_from_the_start", "chain_resets", "stability_1", "stability_16", "stability_4", "variance"]
    assert all(f"(figures/{name}.svg)" in page for name in figures)
    results = json.loads((place / "results.json").read_text())
    assert [entry["section"]["name"] for entry in results["experiments"]] == TABULAR


def test_every_listed_experiment_is_a_module():
    assert all(importlib.util.find_spec(module) is not None for module in EXPERIMENTS.values())


def test_experiments_run_in_the_order_of_the_page_with_what_the_command_line_says(tiny, tmp_path):
    options = ["--seed", "5", "--model", "mine", "--only", "stability", "variance"]
    assert main(["lab", "--output-dir", str(tmp_path / "lab"), *options]) == 0
    assert [name for name, _ in tiny] == ["variance", "stability"]
    assert {(settings.seed, settings.model, settings.quick) for _, settings in tiny} == {(5, "mine", False)}


def test_the_same_study_is_not_run_twice_and_another_one_is_refused(tiny, tmp_path, capsys):
    command = ["lab", "--output-dir", str(tmp_path / "lab"), "--only", "variance"]
    assert main(command) == main(command) == 0
    assert len(tiny) == 1 and "complete, nothing to do" in capsys.readouterr().out
    assert main([*command, "--seed", "1"]) == 4
    assert "holds the result of a run with another config" in capsys.readouterr().err
    assert len(tiny) == 1


def test_a_directory_of_something_else_is_refused(tiny, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main(["lab", "--output-dir", str(tmp_path)]) == 4
    assert "holds files that are not of a run (thesis.tex)" in capsys.readouterr().err
    assert not tiny and [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_experiment_that_fails_leaves_the_page_of_those_before_it(tiny, tmp_path, capsys):
    place = tmp_path / "lab"
    assert main(["lab", "--output-dir", str(place)]) == 1
    assert "ZeroDivisionError: by zero" in capsys.readouterr().err
    page = (place / "lab.md").read_text()
    assert "variance agrees" in page and "stability agrees" in page
    # It is not complete, so that the next study runs.
    assert main(["lab", "--output-dir", str(place), "--only", "variance"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "variance", "varience"], "error: argument --only: invalid choice: 'varience'"),
        (["--seed", "x"], "error: argument --seed: invalid int value: 'x'"),
        (["--only"], "error: argument --only: expected at least one argument"),
        (["seed=3"], "error: unrecognized arguments: seed=3"),
    ],
)
def test_a_wrong_command_line_is_refused_with_status_2(arguments, message, tiny, capsys):
    assert main(["lab", *arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_without_matplotlib_one_line_says_what_to_install(tiny, tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else found(name))
    assert main(["lab", "--output-dir", str(tmp_path / "lab")]) == 2
    assert capsys.readouterr().err == "error: lab: matplotlib not installed - pip install 'rlhf-ppo[lab]'\n"
    assert not tiny and not (tmp_path / "lab").exists()


def test_several_processes_are_refused(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["lab", "--output-dir", str(tmp_path / "lab")]) == 2
    assert "lab runs in one process, 2 started" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_a_disk_error(tiny, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlhf.lab.page.write_atomic", full)
    assert main(["lab", "--output-dir", str(tmp_path / "lab")]) == 4
    assert "lab: cannot be written: No space left on device" in capsys.readouterr().err
