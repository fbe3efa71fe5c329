"""A save that is killed or fails leaves the old checkpoint or the new one whole."""

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rlhf.errors import CheckpointError
from rlhf.training.storage import files, space
from rlhf.training.storage.checkpoint import CheckpointStore


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
        files.save_file = killing(files.save_file)
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    exit_status = os.waitstatus_to_exitcode(status)
    assert exit_status in (0, -signal.SIGKILL)
    return exit_status != 0


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 1], ids=["a new step", "the same step again"])
def test_a_kill_at_any_boundary_of_a_save_leaves_the_previous_checkpoint_or_the_new(
    tmp_path: Path, step: int, numbered: ModuleType
) -> None:
    values, boundary, was_killed = [], 0, True
    while was_killed:
        store = CheckpointStore(tmp_path / str(boundary), keep=1)
        numbered.save(store, 1, value=1.0)
        was_killed = _run_and_kill_at(lambda: numbered.save(store, step, value=2.0), boundary)  # noqa: B023 - runs at once
        values.append(numbered.value(store, on_skip=pytest.fail))
        for path in store.directory.glob("step-??????"):
            store.open(path)  # what bears the name of a checkpoint is whole, also when it was about to be removed
        numbered.save(store, 3)
        assert numbered.names(store.directory) == ["step-000003"]
        boundary += 1
    assert values == sorted(values)  # the old one up to the rename, the new one from then on
    assert values.count(1.0) >= 8
    assert values.count(2.0) >= 3


def test_what_a_killed_save_left_is_never_loaded_and_is_removed_by_the_next(
    store: CheckpointStore, numbered: ModuleType
) -> None:
    numbered.save(store, 1)
    shutil.copytree(store.directory / "step-000001", store.directory / "step-000002.tmp-77")
    assert numbered.value(store) == 1
    numbered.save(store, 3)
    assert numbered.names(store.directory) == ["step-000001", "step-000003"]


def test_a_full_disk_keeps_the_old_checkpoint_and_says_how_much_is_needed(
    store: CheckpointStore, numbered: ModuleType
) -> None:
    numbered.save(store, 1)
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
    assert numbered.names(store.directory) == ["step-000001"]
    assert numbered.value(store) == 1


@pytest.mark.parametrize("failing", ["fsync", "replace", "mkdir"])
def test_an_input_output_error_keeps_the_old_checkpoint(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, failing: str, numbered: ModuleType
) -> None:
    numbered.save(store, 1)

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(CheckpointError, match="No space left on device"):
            numbered.save(store, 2)
    assert numbered.names(store.directory) == ["step-000001"]
    assert numbered.value(store) == 1


def test_a_save_does_not_begin_without_space_for_it(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, numbered: ModuleType
) -> None:
    numbered.save(store, 1)
    monkeypatch.setattr(space, "free_bytes", lambda directory: 42_000)
    with pytest.raises(CheckpointError, match=r"not enough disk space: 44\d{3} bytes needed, 42000 free"):
        store.save(2, {"model": {"weight": torch.zeros(10_000)}}, {})  # 40000 bytes * 1.1 + headers
    assert numbered.names(store.directory) == ["step-000001"]


def test_a_directory_that_cannot_be_made_is_a_checkpoint_error(tmp_path: Path, numbered: ModuleType) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be saved"):
        numbered.save(CheckpointStore(tmp_path / "file" / "checkpoints"), 1)
