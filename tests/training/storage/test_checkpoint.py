"""Checkpoints survive kills, a full disk and damage; only whole ones of the same run are loaded."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rlhf.errors import CheckpointError
from rlhf.training.storage import checkpoint as checkpoint_module
from rlhf.training.storage import manifest as manifest_module
from rlhf.training.storage.checkpoint import CheckpointStore, atomic_directory, write_atomic


def _save(store: CheckpointStore, step: int, value: float | None = None) -> Path:
    value = float(step) if value is None else value
    tensors = {
        "model": {"weight": torch.full((64, 3), value)},
        "optimizer": {"exp_avg.weight": torch.full((4,), value)},
    }
    return store.save(step, tensors, {"value": value})


def _value(store: CheckpointStore, on_skip: Callable[[str], None] = lambda line: None) -> float:
    """Load the newest checkpoint whole, check that its parts agree, and return the number that it holds."""
    newest = store.latest(on_skip)
    assert newest is not None
    value = newest.state["value"]
    assert torch.equal(newest.tensors("model")["weight"], torch.full((64, 3), value))
    assert torch.equal(newest.tensors("optimizer")["exp_avg.weight"], torch.full((4,), value))
    return float(value)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


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


def test_an_unknown_group_is_refused_with_the_known_names(store: CheckpointStore) -> None:
    _save(store, 1)
    loaded = store.latest(pytest.fail)
    assert loaded is not None
    with pytest.raises(CheckpointError, match=r"no tensors named 'critic'; found \['model', 'optimizer'\]"):
        loaded.tensors("critic")


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    first, second = (_save(CheckpointStore(tmp_path / name), 3) for name in "ab")
    assert _names(first) == ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]
    for name in _names(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_files_follow_the_umask(store: CheckpointStore) -> None:
    old = os.umask(0o027)
    try:
        path = _save(store, 1)
    finally:
        os.umask(old)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o640}


def test_the_newest_two_stay(store: CheckpointStore) -> None:
    for step in (1, 2, 3, 10):
        _save(store, step)
    assert _names(store.directory) == ["step-000003", "step-000010"]


def test_a_damaged_checkpoint_does_not_count_among_those_that_stay(store: CheckpointStore) -> None:
    _save(store, 1)
    (_save(store, 2) / "state.json").unlink()
    _save(store, 3)
    assert _names(store.directory) == ["step-000001", "step-000003"]


def test_checkpoints_later_than_the_resumed_one_give_way(store: CheckpointStore) -> None:
    for step in (10, 20):
        _save(store, step)
    _save(store, 15)
    assert _names(store.directory) == ["step-000010", "step-000015"]
    assert _value(store) == 15


def test_a_step_can_be_saved_again(store: CheckpointStore) -> None:
    _save(store, 5, value=1)
    _save(store, 5, value=2)
    assert _value(store) == 2
    assert _names(store.directory) == ["step-000005"]


def test_an_empty_or_absent_directory_has_no_latest(store: CheckpointStore) -> None:
    assert store.latest(pytest.fail) is None
    store.directory.mkdir()
    assert store.latest(pytest.fail) is None


def _flip_bit(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


def _truncate(path: Path) -> None:
    os.truncate(path / "model.safetensors", 100)


def _replace_by_symlink(path: Path) -> None:
    outside = path.parent.parent / "outside.safetensors"
    shutil.move(path / "model.safetensors", outside)
    (path / "model.safetensors").symlink_to(outside)


def _symlink_whole(path: Path) -> None:
    outside = path.parent.parent / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


def _rewrite_manifest(path: Path, change: Callable[[dict], None]) -> None:
    """Change a manifest as an attacker would, who computes its sha256 anew."""
    content = json.loads((path / "manifest.json").read_text())
    del content["sha256"]
    change(content)
    content["sha256"] = manifest_module._content_sha256(content)
    (path / "manifest.json").write_text(json.dumps(content))


def _rename_entry(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        shutil.copy(path / "model.safetensors", path.parent.parent / "other.safetensors")
        _rewrite_manifest(path, lambda m: m["files"].update({name: m["files"]["model.safetensors"]}))

    return damage


def _edit_manifest(old: str, new: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        text = (path / "manifest.json").read_text()
        assert old in text
        (path / "manifest.json").write_text(text.replace(old, new))

    return damage


DAMAGES = {
    "bit flip": (_flip_bit, "the sha256 of model.safetensors differs"),
    "truncation": (_truncate, r"model.safetensors has 100 bytes, expected \d+"),
    "missing file": (lambda path: (path / "state.json").unlink(), "missing state.json"),
    "extra file": (lambda path: (path / "evil.pt").touch(), "evil.pt not listed in manifest.json"),
    "symlink": (_replace_by_symlink, "model.safetensors is not a regular file"),
    "symlinked directory": (_symlink_whole, "not a directory"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
    "half a manifest": (lambda path: os.truncate(path / "manifest.json", 50), "manifest.json is not JSON"),
    "empty manifest": (lambda path: (path / "manifest.json").write_text("[]"), "manifest.json is not a JSON object"),
    "deep manifest": (lambda path: (path / "manifest.json").write_text("[" * 100_000), "manifest.json is not JSON"),
    "huge manifest": (lambda path: os.truncate(path / "manifest.json", 1 << 30), "is larger than"),
    "parent path": (_rename_entry("../../other.safetensors"), "which is not a plain file name"),
    "absolute path": (_rename_entry("/etc/passwd"), "names '/etc/passwd', which is not a plain file name"),
    "dots": (_rename_entry(".."), r"names '\.\.', which is not a plain file name"),
    "changed fingerprint": (_edit_manifest('"fingerprint": {}', '"fingerprint": {"a": 1}'), "its sha256 differs"),
    "no files": (lambda path: _rewrite_manifest(path, lambda m: m.pop("files")), "lists no files"),
    "odd entry": (lambda path: _rewrite_manifest(path, lambda m: m["files"].update(a=1)), "lists no files"),
    "no step": (lambda path: _rewrite_manifest(path, lambda m: m.pop("step")), "lacks the step or the fingerprint"),
    "other step": (lambda path: _rewrite_manifest(path, lambda m: m.update(step=7)), "manifest.json is of step 7"),
    "other format": (_edit_manifest('"format_version": 1', '"format_version": 99'), "has format version 99"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_the_reason_and_refused_by_name(name: str, store: CheckpointStore) -> None:
    damage, reason = DAMAGES[name]
    _save(store, 1)
    path = _save(store, 2)
    damage(path)
    skipped: list[str] = []
    newest = store.latest(skipped.append)
    assert newest is not None
    assert newest.step == 1
    assert len(skipped) == 1
    with pytest.raises(CheckpointError, match=reason) as refused:
        store.open(path)
    assert str(path) in str(refused.value)
    assert str(refused.value).split("damaged checkpoint: ")[1].startswith(skipped[0].split("skipped: ")[1])


def test_every_flipped_byte_of_a_manifest_is_found_or_means_the_same(store: CheckpointStore) -> None:
    path = _save(store, 1) / "manifest.json"
    original = path.read_bytes()
    for position in range(len(original)):
        path.write_bytes(original[:position] + bytes([original[position] ^ 1]) + original[position + 1 :])
        found = store.latest(lambda line: None)
        assert found is None or json.loads(path.read_bytes()) == json.loads(original)


def test_a_checkpoint_of_another_run_is_refused_with_the_differing_keys(tmp_path: Path) -> None:
    saved = {"config": "abc", "seed": 1, "reward_model": "r"}
    _save(CheckpointStore(tmp_path, fingerprint=saved), 1)
    path = _save(CheckpointStore(tmp_path, fingerprint=saved), 2)
    other = CheckpointStore(tmp_path, fingerprint={"config": "abc", "seed": 2, "world_size": 4})
    expected = r"differ: reward_model \(saved 'r', now nothing\), seed \(saved 1, now 2\), world_size \(saved nothing"
    with pytest.raises(CheckpointError, match=expected):
        other.latest(pytest.fail)
    with pytest.raises(CheckpointError, match=expected):
        other.open(path)


def test_a_fingerprint_may_hold_tuples(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, fingerprint={"layers": (1, 2)})
    _save(store, 1)
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


def _run_and_kill_at(action: Callable[[], object], boundary: int) -> bool:
    """Run `action` in a child that kills itself before its n-th call to the file system; True when it was killed."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # a child that hangs fails the test instead of holding it up
        num_calls = 0

        def killing(call: Callable[..., object]) -> Callable[..., object]:
            def counted(*args: object, **kwargs: object) -> object:
                nonlocal num_calls
                num_calls += 1
                if num_calls > boundary:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return counted

        for name in ("mkdir", "fsync", "replace", "unlink", "rmdir"):
            setattr(os, name, killing(getattr(os, name)))
        checkpoint_module.save_file = killing(checkpoint_module.save_file)
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    exit_status = os.waitstatus_to_exitcode(status)
    assert exit_status in (0, -signal.SIGKILL)
    return exit_status != 0


@pytest.mark.parametrize("step", [2, 1], ids=["a new step", "the same step again"])
def test_a_kill_at_any_boundary_of_a_save_leaves_the_previous_checkpoint_or_the_new(tmp_path: Path, step: int) -> None:
    values, boundary, was_killed = [], 0, True
    while was_killed:
        store = CheckpointStore(tmp_path / str(boundary), keep=1)
        _save(store, 1, value=1.0)
        was_killed = _run_and_kill_at(lambda: _save(store, step, value=2.0), boundary)  # noqa: B023 - runs at once
        values.append(_value(store, on_skip=pytest.fail))
        for path in store.directory.glob("step-??????"):
            store.open(path)  # what bears the name of a checkpoint is whole, also when it was about to be removed
        _save(store, 3)
        assert _names(store.directory) == ["step-000003"]
        boundary += 1
    assert values == sorted(values)  # the old one up to the rename, the new one from then on
    assert values.count(1.0) >= 8
    assert values.count(2.0) >= 3


def test_what_a_killed_save_left_is_never_loaded_and_is_removed_by_the_next(store: CheckpointStore) -> None:
    _save(store, 1)
    shutil.copytree(store.directory / "step-000001", store.directory / "step-000002.tmp-77")
    assert _value(store) == 1
    _save(store, 3)
    assert _names(store.directory) == ["step-000001", "step-000003"]


def test_a_full_disk_keeps_the_old_checkpoint_and_says_how_much_is_needed(store: CheckpointStore) -> None:
    _save(store, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(
            CheckpointError, match=r"File too large.*\d+ bytes needed, \d+ free; older checkpoints"
        ) as full:
            store.save(2, {"model": {"weight": torch.zeros(10_000)}}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.exit_status == 4
    assert _names(store.directory) == ["step-000001"]
    assert _value(store) == 1


@pytest.mark.parametrize("failing", ["fsync", "replace", "mkdir"])
def test_an_input_output_error_keeps_the_old_checkpoint(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    _save(store, 1)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(CheckpointError, match="No space left on device"):
            _save(store, 2)
    assert _names(store.directory) == ["step-000001"]
    assert _value(store) == 1


def test_a_save_does_not_begin_without_space_for_it(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(store, 1)
    monkeypatch.setattr(checkpoint_module, "_free_bytes", lambda directory: 42_000)
    with pytest.raises(CheckpointError, match=r"not enough disk space: 44\d{3} bytes needed, 42000 free"):
        store.save(2, {"model": {"weight": torch.zeros(10_000)}}, {})  # 40000 bytes * 1.1 + headers
    assert _names(store.directory) == ["step-000001"]


def test_a_directory_that_cannot_be_made_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be saved"):
        _save(CheckpointStore(tmp_path / "file" / "checkpoints"), 1)


def test_write_atomic_leaves_the_old_text_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomic(path, "old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            write_atomic(path, "new")
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["file.json"]
    write_atomic(path, "new")
    assert path.read_text() == "new"


def test_an_atomic_directory_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_directory(tmp_path / "runs" / "policy") as temporary:
            (temporary / "nested").mkdir()
            (temporary / "nested" / text).write_text(text)
    assert _names(tmp_path / "runs") == ["policy"]
    assert _names(tmp_path / "runs" / "policy" / "nested") == ["new"]


def test_an_atomic_directory_leaves_the_older_one_when_its_block_fails(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "policy") as temporary:
        (temporary / "old").touch()
    with pytest.raises(KeyError), atomic_directory(tmp_path / "policy"):
        raise KeyError("mine")
    with (
        pytest.raises(CheckpointError, match="policy: cannot be written: .*No space"),
        atomic_directory(tmp_path / "policy"),
    ):
        raise OSError(28, "No space left on device")
    assert _names(tmp_path) == ["policy"]
    assert _names(tmp_path / "policy") == ["old"]
