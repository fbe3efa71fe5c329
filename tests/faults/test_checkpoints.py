"""A checkpoint that verifies and does not fit, checkpoints that are all damaged, and one that is named."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf.training.storage import manifest as manifest_module

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def unfinished(run: Path) -> Path:
    """The run as a kill in its fifth step leaves it."""
    (run / "complete.json").unlink()
    shutil.rmtree(run / "policy")
    return run


@contextmanager
def tampered(checkpoint: Path) -> Iterator[None]:
    """Let files be changed, and make the manifest vouch for what they hold now."""
    path = checkpoint / "manifest.json"
    old = json.loads(path.read_text())
    yield
    path.unlink()
    path.write_text(manifest_module.build_manifest(checkpoint, old["step"], old["fingerprint"], old["rows"]))


def tensors(group: str, change: Callable[[Tensors], object]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        file = checkpoint / f"{group}.safetensors"
        held = load_file(file)
        change(held)
        save_file(held, file)

    return damage


def state(text: str) -> Callable[[Path], object]:
    return lambda checkpoint: (checkpoint / "state.json").write_text(text)


NORM, MATRIX = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"
MISFITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a weight is missing": (
        tensors("masters", lambda held: held.pop(NORM)),
        f"masters.safetensors: does not fit this run: lacks {NORM}",
    ),
    "a weight more": (
        tensors("masters", lambda held: held.update(extra=torch.zeros(2))),
        "masters.safetensors: does not fit this run: also holds extra",
    ),
    "a weight of another shape": (
        tensors("masters", lambda held: held.update({NORM: held[NORM][:-1]})),
        rf"{NORM} is \[\d+\] float32, expected \[\d+\] float32",
    ),
    "a moment is missing": (
        tensors("optimizer", lambda held: held.pop(f"exp_avg.{MATRIX}")),
        f"optimizer.safetensors: does not fit this run: lacks exp_avg.{MATRIX}",
    ),
    "a moment of another shape": (
        tensors("optimizer", lambda held: held.update({f"exp_avg_sq.{MATRIX}": torch.zeros(1)})),
        rf"exp_avg_sq.{MATRIX} is \[1\] float32, expected \[\d+, \d+\] float32",
    ),
    "a moment of another type": (
        tensors("optimizer", lambda held: held.update({f"exp_avg.{NORM}": held[f"exp_avg.{NORM}"].double()})),
        rf"exp_avg.{NORM} is \[\d+\] float64, expected \[\d+\] float32",
    ),
    "no moments": (lambda path: (path / "optimizer.safetensors").unlink(), "does not fit this run: lacks optimizer"),
    "another group": (
        lambda path: save_file({"x": torch.zeros(1)}, path / "critic.safetensors"),
        "does not fit this run: also holds critic",
    ),
    "no count": (state("{}"), "state.json: does not fit this run: lacks num_updates"),
    "a count that is none": (
        state('{"num_updates": "4"}'),
        "state.json: num_updates: does not fit this run: expected an integer, found '4'",
    ),
    "a list": (state("[4]"), r"state.json: does not fit this run: expected an object, found \[4\]"),
    "a deep list": (state("[" * 100_000), "state.json: cannot be read"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_checkpoint_that_does_not_fit_is_refused_with_what_and_where(
    name: str, unfinished: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    damage, reason = MISFITS[name]
    checkpoint = unfinished / "checkpoints" / "step-000004"
    with tampered(checkpoint):
        damage(checkpoint)
    ended = sft(unfinished)
    assert ended.status == 4
    on_disk.matches(reason, ended.err)
    assert str(checkpoint) in ended.err and len(ended.err.splitlines()) == 1


def flip_all(run: Path) -> None:
    for path in run.glob("checkpoints/*/masters.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_until_told_to_begin_again(
    unfinished: Path, finished_sft: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    flip_all(unfinished)
    before = on_disk.contents(unfinished)
    ended = sft(unfinished)
    assert ended.status == 4
    on_disk.matches("no checkpoint is whole .*step-000004 skipped: the sha256.*remove this directory", ended.err)
    assert {**on_disk.contents(unfinished), "run.lock": b""} == {**before, "run.lock": b""}
    shutil.rmtree(unfinished / "checkpoints")
    assert sft(unfinished).status == 0
    assert on_disk.contents(unfinished / "policy") == on_disk.contents(finished_sft / "policy")
    assert on_disk.timeless(unfinished) == on_disk.timeless(finished_sft)


def test_a_named_checkpoint_is_resumed_from_and_gives_the_same_bytes(
    unfinished: Path, finished_sft: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    ended = sft(unfinished, f"checkpoints.resume={unfinished}/checkpoints/step-000002")
    assert ended.status == 0, ended.err
    assert f"resuming from {unfinished}/checkpoints/step-000002" in ended.out
    assert on_disk.contents(unfinished / "policy") == on_disk.contents(finished_sft / "policy")
    assert on_disk.timeless(unfinished) == on_disk.timeless(finished_sft)


def test_a_named_checkpoint_of_the_same_run_elsewhere_is_resumed_from_and_the_gap_in_the_metrics_is_said(
    tmp_path: Path, finished_sft: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    ended = sft(tmp_path / "new", f"checkpoints.resume={finished_sft}/checkpoints/step-000004")
    assert ended.status == 0, ended.err
    assert "metrics.jsonl: 0 rows up to step 4, there were 4; steps 1 to 4 have none" in ended.out
    assert on_disk.contents(tmp_path / "new" / "policy") == on_disk.contents(finished_sft / "policy")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("step-000004", "step-000004: damaged checkpoint: the sha256 of masters.safetensors differs"),
        ("step-000009", "step-000009: damaged checkpoint: .*No such file"),
        ("newest", "newest: not a checkpoint; expected a directory named like step-000020"),
    ],
)
def test_a_named_checkpoint_that_cannot_be_used_is_refused_and_no_other_is_taken(
    unfinished: Path, sft: Callable[..., Any], on_disk: ModuleType, name: str, told: str
) -> None:
    path = unfinished / "checkpoints" / "step-000004" / "masters.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    ended = sft(unfinished, f"checkpoints.resume={unfinished}/checkpoints/{name}")
    assert ended.status == 4 and "resuming" not in ended.out
    on_disk.matches(told, ended.err)


def lines_of(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines(keepends=True)


MISSING: dict[str, tuple[Callable[[list[str]], list[str] | None], str]] = {
    "deleted": (lambda lines: None, "0 rows up to step 4, there were 4; steps 1 to 4 have none"),
    "a row lost": (lambda lines: [lines[0], *lines[2:]], "3 rows up to step 4, there were 4; steps 2 have none"),
    "torn": (lambda lines: [*lines[:2], lines[2][:20]], "2 rows up to step 4, there were 4; steps 3 to 4 have none"),
    "not UTF-8 at the end": (
        lambda lines: [*lines[:3], "\udcff\n"],
        "3 rows up to step 4, there were 4; steps 4 have none",
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_rows_that_are_missing_are_said(
    name: str, unfinished: Path, finished_sft: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    change, told = MISSING[name]
    lines = change(lines_of(unfinished))
    if lines is None:
        (unfinished / "metrics.jsonl").unlink()
    else:
        (unfinished / "metrics.jsonl").write_bytes("".join(lines).encode(errors="surrogateescape"))
    ended = sft(unfinished)
    assert ended.status == 0, ended.err
    on_disk.matches(f"warning: .*metrics.jsonl: {told}", ended.out)
    left = [row["step"] for row in on_disk.timeless(unfinished)]
    assert left == sorted(set(left)) and left[-1] == 5


def test_doubled_rows_are_said_and_kept_once(
    unfinished: Path, finished_sft: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    lines = lines_of(unfinished)
    (unfinished / "metrics.jsonl").write_text("".join([*lines[:3], *lines[1:]]))
    ended = sft(unfinished)
    assert ended.status == 0, ended.err
    on_disk.matches("metrics.jsonl: steps 2 to 3 had several rows; the last of each is kept", ended.out)
    assert on_disk.timeless(unfinished) == on_disk.timeless(finished_sft)


def test_a_row_that_cannot_be_read_is_refused_with_file_and_line(unfinished: Path, sft: Callable[..., Any]) -> None:
    lines = lines_of(unfinished)
    text = "".join([lines[0], "\udcff" + lines[1], *lines[2:]])
    (unfinished / "metrics.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    ended = sft(unfinished)
    assert ended.status == 4 and "metrics.jsonl:2: not a row of metrics" in ended.err


def test_metrics_that_are_whole_are_not_spoken_of(unfinished: Path, sft: Callable[..., Any]) -> None:
    assert "metrics.jsonl" not in sft(unfinished).out
