"""What a finished run saved is still there and whole, or made again, or refused; what others put there stays."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def empty_weights(run: Path) -> None:
    (run / "policy" / "model.safetensors").write_bytes(b"")


def flip_a_byte(run: Path) -> None:
    path = run / "policy" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no directory": (lambda run: shutil.rmtree(run / "policy"), r"policy/\S+ is missing"),
    "no weights": (
        lambda run: (run / "policy" / "model.safetensors").unlink(),
        "policy/model.safetensors is missing",
    ),
    "empty weights": (empty_weights, r"policy/model.safetensors has 0 bytes, expected \d+"),
    "a flipped byte": (flip_a_byte, "the sha256 of policy/model.safetensors differs"),
    "half a tokenizer": (
        lambda run: os.truncate(run / "policy" / "tokenizer.json", 100),
        "policy/tokenizer.json has 100 bytes",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_result_is_made_again_from_the_last_checkpoint_to_the_byte(
    name: str, run: Path, finished_sft: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    damage, reason = DAMAGES[name]
    assert "complete, nothing to do" in sft(run).out
    damage(run)
    ended = sft(run)
    assert ended.status == 0, ended.err
    assert "nothing to do" not in ended.out
    on_disk.matches(rf"the result is complete but damaged: {reason}.*; it is made again", ended.out)
    assert "step-000004" in ended.out  # it resumed from there
    assert on_disk.contents(run / "policy") == on_disk.contents(finished_sft / "policy")
    assert on_disk.timeless(run) == on_disk.timeless(finished_sft)
    assert "complete, nothing to do" in sft(run).out


def test_a_damaged_result_without_a_checkpoint_is_refused_by_name(run: Path, sft: Callable[..., Any]) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "policy" / "model.safetensors").unlink()
    before = sorted(path for path in run.rglob("*"))
    ended = sft(run)
    assert ended.status == 4
    assert "policy/model.safetensors is missing; no checkpoint is left to make it again from" in ended.err
    assert sorted(path for path in run.rglob("*")) == before


def test_the_mark_vouches_for_every_file_of_the_result(run: Path) -> None:
    files = json.loads((run / "complete.json").read_text())["files"]
    written = {str(path.relative_to(run)) for path in (run / "policy").rglob("*") if path.is_file()}
    assert set(files) | {"policy/rlhf_files.json", "policy/README.md"} == written


def test_a_card_may_be_edited_and_the_result_stays_whole(run: Path, sft: Callable[..., Any]) -> None:
    (run / "policy" / "README.md").write_text("mine")
    assert "complete, nothing to do" in sft(run).out
    assert (run / "policy" / "README.md").read_text() == "mine"


def test_a_file_that_the_user_adds_to_a_result_does_no_harm_and_takes_none(
    run: Path, finished_sft: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    (run / "policy" / "notes.txt").write_text("mine")
    assert "complete, nothing to do" in sft(run).out
    (run / "policy" / "model.safetensors").unlink()
    ended = sft(run)
    assert ended.status == 0 and "policy/notes.txt is not a file of ours; what was there is kept as" in ended.out
    assert (run / "policy.kept-1" / "notes.txt").read_text() == "mine"
    assert on_disk.contents(run / "policy") == on_disk.contents(finished_sft / "policy")


def test_a_policy_that_is_a_link_is_not_replaced(
    tmp_path: Path, finished_sft: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("mine")
    (run / "run.lock").touch()
    (run / "policy").symlink_to(elsewhere)
    ended = sft(run)
    assert ended.status == 0 and f"policy is a link; what was there is kept as {run / 'policy.kept-1'}" in ended.out
    assert (run / "policy.kept-1").readlink() == elsewhere
    assert on_disk.contents(elsewhere) == {"thesis.tex": b"mine"}
    assert on_disk.contents(run / "policy") == on_disk.contents(finished_sft / "policy")


def test_all_that_a_stage_saves_can_be_read_as_the_umask_says(finished_sft: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    modes = {path: path.stat().st_mode & 0o777 for path in [finished_sft, *finished_sft.rglob("*")][1:]}
    wrong = {
        str(path.relative_to(finished_sft)): oct(mode)
        for path, mode in modes.items()
        if mode != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert not wrong and len(modes) > 15
