"""Tests of rlhf.report.watching.watched: a page is new when the run has new rows, and not more often than is cheap."""

import json

from rlhf.report.watching.watched import MIN_SECONDS, Watched


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def grow(run, step):
    with (run / "ppo" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "objective/scores": 0.5, "objective/kl": 1.0}) + "\n")


def test_before_its_first_row_a_run_is_waited_for_and_then_shown(planting, tmp_path):
    clock, run = Clock(), tmp_path / "run<b>"
    watched = Watched([run], clock)
    assert "Nothing to show yet" in watched.page() and "run&lt;b&gt;" in watched.page()
    first = watched.version()
    for name, text in (
        ("config.yaml", "kl_coef: 0.1\n"),
        ("metrics.jsonl", ""),
    ):  # the loop opens the file before a step
        (run / "ppo").mkdir(parents=True, exist_ok=True)
        (run / "ppo" / name).write_text(text)
    clock.now += MIN_SECONDS
    assert watched.version() != first
    assert "Nothing to show yet" not in watched.page() and "No verdict" in watched.page()
    grow(run, 1)
    clock.now += MIN_SECONDS
    assert f'data-version="{watched.version()}"' in watched.page()


def test_new_rows_make_a_new_page_but_only_after_a_while(planting, tmp_path):
    clock, run = Clock(), planting.plant(tmp_path, steps=10)
    watched = Watched([run], clock)
    page, version = watched.page(), watched.version()
    grow(run, 11)
    clock.now += MIN_SECONDS / 2
    assert (watched.page(), watched.version()) == (page, version)
    clock.now += MIN_SECONDS / 2
    assert watched.version() != version
    assert watched.page() != page
    assert f'data-version="{watched.version()}"' in watched.page()


def test_a_frontier_that_comes_later_makes_a_new_page(planting, tmp_path):
    clock, run = Clock(), planting.plant(tmp_path, steps=10)
    watched = Watched([run], clock)
    watched.page()
    planting.write_frontier(run)
    clock.now += 1000
    assert "does not (6)" in watched.page()


def test_without_a_change_the_page_is_made_once(planting, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("rlhf.report.watching.watched.html", lambda runs, version: made.append(version) or "page")
    clock = Clock()
    watched = Watched([planting.plant(tmp_path, steps=10)], clock)
    for _ in range(3):
        watched.page()
        clock.now += 100
    assert len(made) == 1


def test_a_page_that_costs_much_is_made_seldom(planting, tmp_path, monkeypatch):
    clock = Clock()

    def slow(runs, version):
        clock.now += 10.0
        return version

    monkeypatch.setattr("rlhf.report.watching.watched.html", slow)
    run = planting.plant(tmp_path, steps=10)
    watched = Watched([run], clock)
    first = watched.page()
    grow(run, 11)
    clock.now += 199.0
    assert watched.page() == first
    clock.now += 1.0
    assert watched.page() != first


def test_a_file_that_cannot_be_read_is_told_and_the_page_comes_back(planting, tmp_path):
    clock, run = Clock(), planting.plant(tmp_path, steps=10)
    whole = (run / "ppo" / "metrics.jsonl").read_text()
    (run / "ppo" / "metrics.jsonl").write_text("<script>\n" + whole)
    watched = Watched([run], clock)
    assert "metrics.jsonl:1: not JSON" in watched.page()
    (run / "ppo" / "metrics.jsonl").write_text(whole)
    clock.now += MIN_SECONDS
    assert "Nothing to show yet" not in watched.page()
