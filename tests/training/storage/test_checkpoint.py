"""Checkpoints survive kills, a full disk and damage; only whole ones of the same run are loaded."""

import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rlhf.errors import CheckpointError
from rlhf.training.storage.checkpoint import CheckpointStore


def test_what_was_saved_is_loaded_bit_for_bit(store: CheckpointStore) -> None:
    shared = torch.randn(4, 6)
    group = {
        "bool": torch.tensor([True, False]),
        "uint8": torch.arange(256, dtype=torch.uint8),
        "bfloat16": torch.randn(5).bfloat16(),
        "float32": torch.tensor([1e-45, float("inf"), -0.0]),
        "int64": torch.tensor(2**62),
        "empty": torch.empty(0, 3),
        "shared": shared,
        "tied": shared,
        "part": shared[1:3],
        "transposed": shared.t(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    state = {"float": 0.1 + 0.2, "int": 2**60, "list": [1, None, "x"], "text": "\u00e9"}
    store.save(20, {"all": group, "none": {}}, state)
    loaded = store.latest(pytest.fail)
    assert loaded is not None
    assert loaded.step == 20
    assert loaded.path.name == "step-000020"
    assert loaded.state == state
    assert loaded.tensors("none") == {}
    tensors = loaded.tensors("all")
    assert tensors.keys() == group.keys()
    for name, tensor in group.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_an_unknown_group_is_refused_with_the_known_names(store: CheckpointStore, numbered: ModuleType) -> None:
    numbered.save(store, 1)
    loaded = store.latest(pytest.fail)
    assert loaded is not None
    with pytest.raises(CheckpointError, match=r"no tensors named 'critic'; found \['model', 'optimizer'\]"):
        loaded.tensors("critic")


def test_equal_contents_give_equal_bytes(tmp_path: Path, numbered: ModuleType) -> None:
    first, second = (numbered.save(CheckpointStore(tmp_path / name), 3) for name in "ab")
    assert numbered.names(first) == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    for name in numbered.names(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_files_follow_the_umask(store: CheckpointStore, numbered: ModuleType) -> None:
    old = os.umask(0o027)
    try:
        path = numbered.save(store, 1)
    finally:
        os.umask(old)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o640}


def test_the_newest_two_stay(store: CheckpointStore, numbered: ModuleType) -> None:
    for step in (1, 2, 3, 10):
        numbered.save(store, step)
    assert numbered.names(store.directory) == ["step-000003", "step-000010"]


def test_a_damaged_checkpoint_does_not_count_among_those_that_stay(
    store: CheckpointStore, numbered: ModuleType
) -> None:
    numbered.save(store, 1)
    (numbered.save(store, 2) / "state.json").unlink()
    numbered.save(store, 3)
    assert numbered.names(store.directory) == ["step-000001", "step-000003"]


def test_checkpoints_later_than_the_resumed_one_give_way(store: CheckpointStore, numbered: ModuleType) -> None:
    for step in (10, 20):
        numbered.save(store, step)
    numbered.save(store, 15)
    assert numbered.names(store.directory) == ["step-000010", "step-000015"]
    assert numbered.value(store) == 15


def test_what_a_killed_save_had_still_to_remove_is_removed_and_later_ones_stay(
    store: CheckpointStore, numbered: ModuleType
) -> None:
    many = CheckpointStore(store.directory, keep=9)
    for step in (1, 2, 3, 4):
        numbered.save(many, step)
    shutil.copytree(store.path_of(3), store.directory / "step-000003.old")
    store.tidy(3)
    assert numbered.names(store.directory) == ["step-000002", "step-000003", "step-000004"]


def test_a_step_can_be_saved_again(store: CheckpointStore, numbered: ModuleType) -> None:
    numbered.save(store, 5, value=1)
    numbered.save(store, 5, value=2)
    assert numbered.value(store) == 2
    assert numbered.names(store.directory) == ["step-000005"]


def test_an_empty_or_absent_directory_has_no_latest(store: CheckpointStore) -> None:
    assert store.latest(pytest.fail) is None
    store.directory.mkdir()
    assert store.latest(pytest.fail) is None


def test_a_checkpoint_of_another_run_is_refused_with_the_differing_keys(tmp_path: Path, numbered: ModuleType) -> None:
    saved = {"config": "abc", "seed": 1, "reward_model": "r"}
    numbered.save(CheckpointStore(tmp_path, fingerprint=saved), 1)
    path = numbered.save(CheckpointStore(tmp_path, fingerprint=saved), 2)
    other = CheckpointStore(tmp_path, fingerprint={"config": "abc", "seed": 2, "world_size": 4})
    expected = r"differ: reward_model \(saved 'r', now nothing\), seed \(saved 1, now 2\), world_size \(saved nothing"
    with pytest.raises(CheckpointError, match=expected):
        other.latest(pytest.fail)
    with pytest.raises(CheckpointError, match=expected):
        other.open(path)


def test_a_fingerprint_may_hold_tuples(tmp_path: Path, numbered: ModuleType) -> None:
    store = CheckpointStore(tmp_path, fingerprint={"layers": (1, 2)})
    numbered.save(store, 1)
    assert store.latest(pytest.fail) is not None


def test_open_refuses_what_is_not_named_like_a_checkpoint(store: CheckpointStore, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a directory named like step-000020"):
        store.open(tmp_path)
    with pytest.raises(CheckpointError, match="No such file"):
        store.open(store.directory / "step-000001")


def test_names_that_would_leave_the_directory_are_refused(store: CheckpointStore) -> None:
    with pytest.raises(ValueError, match=r"found \['\.\./model'\]"):
        store.save(1, {"../model": {}}, {})


def test_a_keep_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1, found 0"):
        CheckpointStore(tmp_path, keep=0)
