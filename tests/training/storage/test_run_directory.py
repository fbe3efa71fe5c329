"""One run in a directory at a time, and no run in the directory of something else."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf.errors import CheckpointError
from rlhf.training.storage.run_directory import RunDirectory, is_complete

HOLD = """
import pathlib, sys, time
from rlhf.training.storage.run_directory import RunDirectory
with RunDirectory(pathlib.Path(sys.argv[1]), fingerprint="a"):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_with_the_process_of_the_first_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "locked\n"
            holder = f"in use by process {first.pid} on {socket.gethostname()}"
            with pytest.raises(CheckpointError, match=holder) as refused, RunDirectory(path, fingerprint="a"):
                pass
            assert refused.value.exit_status == 4
        finally:
            first.kill()
    with RunDirectory(path, fingerprint="a"):
        assert str(os.getpid()) in (path / "run.lock").read_text()


def test_the_lock_is_released_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunDirectory(tmp_path / "run", fingerprint="a"):
        raise KeyError
    with (
        RunDirectory(tmp_path / "run", fingerprint="a") as first,
        pytest.raises(CheckpointError, match="in use"),
        RunDirectory(first.path, fingerprint="a"),
    ):
        pass
    with RunDirectory(tmp_path / "run", fingerprint="a"):
        pass


def test_a_directory_with_files_of_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with (
        pytest.raises(CheckpointError, match=r"files that are not of a run \(thesis.tex\)"),
        RunDirectory(tmp_path, fingerprint="a"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_directory_is_welcome(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, fingerprint="a", resume="never") as run:
        assert (run.checkpoints, run.metrics) == (tmp_path / "checkpoints", tmp_path / "metrics.jsonl")
        assert (run.events, run.samples) == (tmp_path / "events", tmp_path / "samples")


def test_an_existing_run_is_resumed_or_refused_as_the_policy_says(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, fingerprint="a") as run:
        run.metrics.touch()
    with RunDirectory(tmp_path, fingerprint="a"):
        pass
    with (
        pytest.raises(CheckpointError, match="set resume=auto to go on, or choose another output_dir"),
        RunDirectory(tmp_path, fingerprint="a", resume="never"),
    ):
        pass
    with RunDirectory(tmp_path, fingerprint="a"):  # the refused one has not kept the lock
        pass


def test_a_run_is_complete_only_when_marked_with_the_same_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert not is_complete(path, "a")
    with RunDirectory(path, fingerprint="a") as run:
        assert not is_complete(path, "a")
        run.mark_complete()
    assert is_complete(path, "a")
    assert not is_complete(path, "b")
    (path / "complete.json").write_text('"a"')
    assert not is_complete(path, "a")
    (path / "complete.json").write_text("{")
    assert not is_complete(path, "a")


def test_the_result_of_another_config_is_not_overwritten(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, fingerprint="a") as run:
        run.mark_complete()
    with (
        pytest.raises(CheckpointError, match="the result of a run with another config"),
        RunDirectory(tmp_path, fingerprint="b"),
    ):
        pass
    with RunDirectory(tmp_path, fingerprint="a"):
        pass


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ({"steps": 2, "kl_coef": 0.1}, r" \(steps: 4 -> 2\); choose"),
        ({"steps": 4, "kl_coef": 0.2}, r" \(kl_coef: 0.1 -> 0.2\); choose"),
        ({"steps": 8, "epochs": 2, "kl_coef": 0.1}, r" \(epochs: null -> 2, steps: 4 -> 8\); choose"),
        ({"steps": 4, "kl_coef": 0.1}, r" \(the content of data or models differs\); choose"),
        (
            {"steps": 5, "kl_coef": 0.2, "a": 1, "b": None},
            r" \(a: null -> 1, kl_coef: 0.1 -> 0.2, steps: 4 -> 5\); choose",
        ),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, r" \(a: null -> 1, b: null -> 2, c: null -> 3, and 3 more\); choose"),
    ],
)
def test_the_refusal_names_what_differs(tmp_path: Path, now: dict[str, Any], named: str) -> None:
    with RunDirectory(tmp_path, fingerprint="a", settings={"steps": 4, "kl_coef": 0.1}) as run:
        run.mark_complete()
    with pytest.raises(CheckpointError, match=named), RunDirectory(tmp_path, fingerprint="b", settings=now):
        pass


def test_a_longer_run_is_let_in_and_told_when_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, fingerprint="a-data", settings={"steps": 4, "kl_coef": 0.1}) as run:
        run.mark_complete()
    longer = {"steps": 8, "kl_coef": 0.1}
    with RunDirectory(tmp_path, fingerprint="b-data", settings=longer) as run:
        with pytest.raises(CheckpointError, match=r"result of a shorter run \(steps: 4 -> 8\), and no checkpoint"):
            run.refuse_to_start_over()
        assert is_complete(tmp_path, "a-data"), "until the longer run takes a step, the shorter one is complete"
        run.mark_unfinished()
        run.refuse_to_start_over()
    assert not (tmp_path / "complete.json").exists()
    with RunDirectory(tmp_path, fingerprint="b-data", settings=longer) as run:
        run.mark_complete()
    further = {"steps": 9, "kl_coef": 0.1}
    with (
        pytest.raises(CheckpointError, match=r"\(steps: 8 -> 9, the content of data or models differs\); choose"),
        RunDirectory(tmp_path, fingerprint="c-other", settings=further),
    ):
        pass


def test_other_processes_than_the_main_one_touch_nothing(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run", fingerprint="a", is_main=False) as run:
        run.mark_complete()
    assert not (tmp_path / "run").exists()


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CheckpointError, match="cannot be used as output_dir"),
        RunDirectory(tmp_path / "file", fingerprint="a"),
    ):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "run" / "run.lock").symlink_to(tmp_path / "precious")
    with (
        pytest.raises(CheckpointError, match="cannot be used as output_dir"),
        RunDirectory(tmp_path / "run", fingerprint="a"),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "keep"


def test_a_mark_of_completion_that_is_nested_without_end_is_none(tmp_path: Path) -> None:
    (tmp_path / "complete.json").write_text("[" * 20_000)
    assert not is_complete(tmp_path, "a")
