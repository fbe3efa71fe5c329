"""Metrics are rows of valid JSON, cut back on resume, and sent to trackers only where there are any."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rlhf.errors import CheckpointError
from rlhf.training.telemetry.metrics import MetricsLog, saved_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "metrics.jsonl"


def _write_steps(path: Path, *steps: int) -> None:
    with MetricsLog(path) as log:
        for step in steps:
            log.write(step, {"loss": 1 / step})


def test_rows_are_read_as_they_were_written(path: Path, on_disk: ModuleType) -> None:
    with MetricsLog(path) as log:
        log.write(1, {"loss": 0.1, "kl": torch.tensor(0.5), "stage": "sft", "ended": True, "tokens": 12, "none": None})
        assert len(on_disk.rows(path)) == 1  # visible at once, not only at close
        log.write(2, {"loss": 0.05})
    assert on_disk.rows(path) == [
        {"step": 1, "loss": 0.1, "kl": 0.5, "stage": "sft", "ended": True, "tokens": 12, "none": None},
        {"step": 2, "loss": 0.05},
    ]


def test_numbers_that_are_not_finite_become_null_and_are_named(path: Path) -> None:
    with MetricsLog(path) as log:
        log.write(1, {"loss": float("nan"), "kl": torch.tensor(float("-inf")), "lr": 0.1})
    row = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert row == {"step": 1, "loss": None, "kl": None, "lr": 0.1, "not_finite": {"loss": "nan", "kl": "-inf"}}


@pytest.mark.parametrize("name", ["step", "not_finite"])
def test_names_of_the_log_itself_are_refused(path: Path, name: str) -> None:
    with MetricsLog(path) as log, pytest.raises(ValueError, match=name):
        log.write(1, {name: 2.0})


def test_resuming_after_a_cut_back_does_not_double_rows(path: Path, on_disk: ModuleType) -> None:
    _write_steps(path, 1, 2, 3, 4, 5)
    uninterrupted = path.read_bytes()
    with MetricsLog(path) as log:
        log.cut_back(3)
        assert [row["step"] for row in on_disk.rows(path)] == [1, 2, 3]
        for step in (4, 5):
            log.write(step, {"loss": 1 / step})
    assert path.read_bytes() == uninterrupted


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step"', "{}", "\udcff"])
def test_a_torn_last_line_is_left_out_and_removed(path: Path, torn: str) -> None:
    _write_steps(path, 1, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode(errors="surrogateescape"))
    MetricsLog(path).close()
    assert path.read_bytes() == whole


def test_a_whole_last_line_without_its_end_is_kept(path: Path) -> None:
    _write_steps(path, 1, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    MetricsLog(path).close()
    assert path.read_bytes() == whole


def test_damage_before_the_last_line_is_refused_with_file_and_line(path: Path) -> None:
    _write_steps(path, 1, 2, 3)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "garbage\n" + lines[2])
    with pytest.raises(CheckpointError, match=r"metrics.jsonl:2: not a row of metrics"):
        MetricsLog(path)


def test_a_kill_loses_no_row_that_was_written(path: Path, on_disk: ModuleType) -> None:
    script = (
        "import os, sys, pathlib\nfrom rlhf.training.telemetry.metrics import MetricsLog\n"
        "log = MetricsLog(pathlib.Path(sys.argv[1]))\nlog.write(1, {'loss': 1.0})\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -9
    assert on_disk.rows(path) == [{"step": 1, "loss": 1.0}]


def test_only_one_process_writes(path: Path) -> None:
    with MetricsLog(path, enabled=False) as log:
        log.write(1, {"loss": 1.0})
        log.cut_back(0)
    assert not path.parent.exists()


def test_writing_to_a_closed_log_is_a_mistake(path: Path) -> None:
    log = MetricsLog(path)
    log.close()
    with pytest.raises(ValueError, match="is closed"):
        log.write(1, {})


def test_a_full_disk_is_a_checkpoint_error(path: Path) -> None:
    log = MetricsLog(path)
    log.close()
    log._file = open("/dev/full", "w")  # noqa: SIM115 - closed by the log; every write to it fails as on a full disk
    with pytest.raises(CheckpointError, match="No space left on device"), log:
        log.write(1, {"loss": 1.0})
    log.close()  # nothing is left to fail again


def test_saved_rows_are_what_train_returned(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(1, {"loss": 0.5, "rate": float("inf")})
        log.write(2, {"loss": float("nan"), "note": "text"})
    first, second = saved_metrics(tmp_path / "metrics.jsonl")
    assert first == {"step": 1.0, "loss": 0.5, "rate": math.inf}
    assert math.isnan(second.pop("loss")) and second == {"step": 2.0, "note": "text"}
    assert saved_metrics(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    "row",
    ['{"step": true}', '{"step": -1}', '{"step": 1e3}', f'{{"step": {10**30}}}']
    + [f'{{"step": 1, "not_finite": {value}}}' for value in ("5", "null", '{"loss": null}', '{"loss": "a"}')],
)
def test_a_row_that_no_log_writes_is_refused_with_its_line(path: Path, row: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(row + '\n{"step": 2}\n')
    for read in (saved_metrics, MetricsLog):
        with pytest.raises(CheckpointError, match=":1: not a row of metrics"):
            read(path)
