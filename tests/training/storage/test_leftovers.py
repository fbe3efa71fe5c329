"""What a killed process left is removed by the next run in the directory, and nothing else is."""

from pathlib import Path
from types import ModuleType

import pytest

from rlhf.errors import CheckpointError
from rlhf.training.storage.run_directory import RunDirectory

LEFT = [
    *(
        "policy.tmp-77/model.safetensors",
        "critic.tmp-77/model.safetensors",
        "base_model.tmp-8/x",
        "reward_model.tmp-9/x",
    ),
    *("checkpoints/step-000002.tmp-77/state.json", "checkpoints/step-000001.tmp-pruned-77/state.json"),
    *(".config.yaml.tmp-77", ".complete.json.tmp-77", ".metrics.jsonl.tmp-77", "samples/.step-000001.jsonl.tmp-77"),
    "figures/.bars.svg.tmp-77",
]
MINE = [
    *("policy/model.safetensors", "policy.tmp-best/x", "notes.tmp-77", ".hidden", "checkpoints/step-000002/state.json"),
    *("samples/step-000001.jsonl", "data.tmp-77/rows.jsonl", "policy.old/x", "run.lock"),
]


def write(directory: Path, names: list[str]) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)


def test_leftovers_are_removed_when_the_directory_is_locked(tmp_path: Path, on_disk: ModuleType) -> None:
    write(tmp_path, [*LEFT, *MINE])
    with RunDirectory(tmp_path, fingerprint="a"):
        pass
    assert sorted(on_disk.contents(tmp_path)) == sorted(MINE)
    assert {path.parent.name for path in tmp_path.rglob("*") if ".tmp-7" in path.name} == {tmp_path.name}


def test_the_directory_of_a_living_run_is_not_swept(tmp_path: Path, on_disk: ModuleType) -> None:
    with RunDirectory(tmp_path, fingerprint="a"):
        write(tmp_path, LEFT)
        with pytest.raises(CheckpointError, match="in use by"), RunDirectory(tmp_path, fingerprint="a"):
            pass
        assert {*on_disk.contents(tmp_path)} == {*LEFT, "run.lock"}


def test_a_result_comes_back_whose_replacement_had_not_come(tmp_path: Path, on_disk: ModuleType) -> None:
    write(
        tmp_path,
        ["run.lock", "policy.tmp-replaced-77/old", "policy.tmp-77/new", "critic/new", "critic.tmp-replaced-7/old"],
    )
    with RunDirectory(tmp_path, fingerprint="a"):
        pass
    assert {*on_disk.contents(tmp_path)} == {"run.lock", "policy/old", "critic/new"}


def test_folders_that_are_links_are_not_swept(tmp_path: Path, on_disk: ModuleType) -> None:
    write(tmp_path, ["run/run.lock", "elsewhere/.step-000001.jsonl.tmp-77"])
    (tmp_path / "run" / "samples").symlink_to(tmp_path / "elsewhere")
    with RunDirectory(tmp_path / "run", fingerprint="a"):
        pass
    assert (tmp_path / "elsewhere" / ".step-000001.jsonl.tmp-77").exists()
