"""Tests of rlhf.report.reading.frontier: where frontiers are found, the drawn law, files of another form."""

import json

import numpy as np
import pytest

from rlhf.errors import CheckpointError
from rlhf.report.reading.frontier import frontier_of
from rlhf.report.reading.run import read_run


def test_frontiers_are_found_below_any_stage_and_in_the_directory_itself(planting, tmp_path):
    run = planting.plant(tmp_path / "run")
    assert read_run(run).frontiers == {}
    file = planting.write_frontier(run)
    found = read_run(run).frontiers
    assert list(found) == ["evaluate/frontier"] and found["evaluate/frontier"].best == "step-000020"
    assert list(read_run(run / "evaluate").frontiers) == ["frontier"]
    (run / "again" / "frontier").mkdir(parents=True)
    (run / "again" / "frontier" / "frontier.json").write_text(file.read_text())
    assert list(read_run(run).frontiers) == ["again/frontier", "evaluate/frontier"]


def test_the_drawn_curve_is_the_law_of_its_kind(planting):
    content = planting.frontier()
    gold = frontier_of(content, "f").laws["ppo"]["gold"]
    points = [point for point in frontier_of(content, "f").points if point.kind == "ppo"]
    distances = np.array([point.distance for point in points])
    assert gold.gain(distances) == pytest.approx([point.gold.mean for point in points])  # planted on the law
    assert gold.gain(np.zeros(1)) == 0
    content["laws"]["best_of"]["gold"] = {**content["laws"]["ppo"]["gold"], "kind": "best_of"}
    best_of = frontier_of(content, "f").laws["best_of"]["gold"]
    assert best_of.gain(np.array([3.0])) == pytest.approx(3 * (1 - 2 / 3 * 3))


def test_an_estimate_of_the_kl_below_0_is_at_the_start(planting):
    content = planting.frontier()
    content["points"][0]["kl"] = -0.01
    assert frontier_of(content, "f").points[0].distance == 0


def test_a_file_of_another_form_is_one_clear_line(planting, tmp_path):
    content = planting.frontier()
    del content["points"][2]["gold"]
    content["best"] = 3
    file = planting.write_frontier(planting.plant(tmp_path), content)
    with pytest.raises(
        CheckpointError, match=r"points\.2\.gold: Field required \(1 more like this\) - expected"
    ) as found:
        read_run(tmp_path)
    assert str(found.value).startswith(str(file)) and "\n" not in str(found.value)
    file.write_text(json.dumps([]))
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        read_run(tmp_path)
