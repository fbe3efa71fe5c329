"""Tests of rlhf.training.telemetry.circumstances."""

import json
from pathlib import Path

import pytest
import torch

from rlhf.training.telemetry.circumstances import FILE, circumstances, write_circumstances


def test_machine_versions_and_date_are_named() -> None:
    found = circumstances(["torch", "no-such-library"])
    assert f"torch {torch.__version__}" in found["versions"] and "no-such-library (not installed)" in found["versions"]
    assert "thread" in found["machine"] and len(found["date"]) == 10


def test_every_start_of_a_run_is_kept(tmp_path: Path) -> None:
    write_circumstances(tmp_path, {"processes": 2}, 0)
    write_circumstances(tmp_path, {"processes": 2}, None)
    write_circumstances(tmp_path, {"processes": 1}, 40)
    content = json.loads((tmp_path / FILE).read_text())
    assert content["processes"] == 1 and "python" in content["versions"]
    assert [start["from_step"] for start in content["starts"]] == [0, 40]
    assert all(start["time"].endswith("+00:00") for start in content["starts"])


def test_stops_by_a_guard_are_kept_through_later_starts(tmp_path: Path) -> None:
    write_circumstances(tmp_path, {}, 0)
    assert "stops" not in json.loads((tmp_path / FILE).read_text())
    write_circumstances(tmp_path, {}, None, (12, "KL above 20"))
    write_circumstances(tmp_path, {}, 10)
    content = json.loads((tmp_path / FILE).read_text())
    assert [(stop["after_step"], stop["reason"]) for stop in content["stops"]] == [(12, "KL above 20")]
    assert [start["from_step"] for start in content["starts"]] == [0, 10]


@pytest.mark.parametrize("text", ["{", "[]", '{"starts": 3}', "[" * 20_000])
def test_a_file_of_no_use_is_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    write_circumstances(tmp_path, {}, 7)
    assert [start["from_step"] for start in json.loads((tmp_path / FILE).read_text())["starts"]] == [7]
