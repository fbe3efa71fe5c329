"""Tests of rlhf.training.storage.atomic."""

import os
from pathlib import Path
from types import ModuleType

import pytest

from rlhf.errors import CheckpointError
from rlhf.training.storage.atomic import atomic_directory, write_atomic, write_output


def test_write_atomic_leaves_the_old_text_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbered: ModuleType
) -> None:
    path = tmp_path / "file.json"
    write_atomic(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert numbered.names(tmp_path) == ["file.json"]
    write_atomic(path, "new")
    assert path.read_text() == "new"


def test_an_atomic_directory_appears_whole_and_replaces_an_older_one(tmp_path: Path, numbered: ModuleType) -> None:
    for text in ("old", "new"):
        with atomic_directory(tmp_path / "runs" / "policy") as temporary:
            (temporary / "nested").mkdir()
            (temporary / "nested" / text).write_text(text)
    assert numbered.names(tmp_path / "runs") == ["policy"]
    assert numbered.names(tmp_path / "runs" / "policy" / "nested") == ["new"]


def test_an_atomic_directory_leaves_the_older_one_when_its_block_fails(tmp_path: Path, numbered: ModuleType) -> None:
    with atomic_directory(tmp_path / "policy") as temporary:
        (temporary / "old").touch()
    with pytest.raises(KeyError), atomic_directory(tmp_path / "policy"):
        raise KeyError("mine")
    with (
        pytest.raises(CheckpointError, match="policy: cannot be written: .*No space"),
        atomic_directory(tmp_path / "policy"),
    ):
        raise OSError(28, "No space left on device")
    assert numbered.names(tmp_path) == ["policy"]
    assert numbered.names(tmp_path / "policy") == ["old"]


def test_directories_above_a_file_are_made(tmp_path: Path) -> None:
    write_output(tmp_path / "deep" / "file", "text")
    assert (tmp_path / "deep" / "file").read_text() == "text"


def test_a_file_that_cannot_be_written_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="out.jsonl: cannot be written"):
        write_output(tmp_path / "file" / "out.jsonl", "text")
