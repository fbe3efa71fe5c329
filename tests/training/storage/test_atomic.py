"""Tests of rlhf.training.storage.atomic."""

import os
from pathlib import Path
from types import ModuleType

import pytest

from rlhf.disk import write_atomic
from rlhf.errors import CheckpointError
from rlhf.training.storage.atomic import atomic_directory, write_output


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
    assert numbered.names(tmp_path / "policy") == ["old", "rlhf_files.json"]


def _link(target: Path) -> None:
    (target / "weights").unlink()
    target.joinpath("rlhf_files.json").unlink()
    target.rmdir()
    target.symlink_to(target.parent.parent / "elsewhere")


ADDED = {
    "a file more": lambda target: (target / "notes.txt").write_text("mine"),
    "a changed file": lambda target: (target / "weights").write_text("mine"),
    "a folder that is a link": lambda target: (target / "linked").symlink_to(target.parent.parent / "elsewhere"),
    "a link": _link,
}


@pytest.mark.parametrize("kind", ADDED)
def test_an_atomic_directory_removes_nothing_that_it_did_not_write(
    tmp_path: Path, numbered: ModuleType, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target, elsewhere = tmp_path / "run" / "policy", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("mine")
    with atomic_directory(target) as temporary:
        (temporary / "weights").write_text("old")
    ADDED[kind](target)
    is_link, before = target.is_symlink(), numbered.names(target)
    for number in (1, 2):  # the second one finds only what the first one wrote
        with atomic_directory(target) as temporary:
            (temporary / "weights").write_text(f"new {number}")
    kept = target.with_name("policy.kept-1")
    assert (target / "weights").read_text() == "new 2" and numbered.names(target.parent) == [target.name, kept.name]
    assert f"what was there is kept as {kept}" in capsys.readouterr().out
    assert numbered.names(kept) == before and kept.is_symlink() == is_link
    assert (elsewhere / "thesis.tex").read_text() == "mine"


def test_a_file_in_the_place_of_a_directory_is_kept(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("mine")
    with atomic_directory(tmp_path / "policy") as temporary:
        (temporary / "weights").touch()
    assert (tmp_path / "policy.kept-1").read_text() == "mine"


def test_directories_above_a_file_are_made(tmp_path: Path) -> None:
    write_output(tmp_path / "deep" / "file", "text")
    assert (tmp_path / "deep" / "file").read_text() == "text"


def test_a_file_that_cannot_be_written_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="out.jsonl: cannot be written"):
        write_output(tmp_path / "file" / "out.jsonl", "text")
