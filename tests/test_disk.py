"""Tests of rlhf.disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.disk import make_private, open_up, write_atomic


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """The umask of the test."""
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def mode(path: Path) -> int:
    """The permissions of a file."""
    return path.stat().st_mode & 0o777


def test_a_file_is_private_until_it_has_its_name_and_then_follows_the_umask(
    tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_written = []
    write = Path.write_bytes

    def watched(path: Path, *arguments: object, **options: object) -> int:
        while_written.append(mode(path))
        return write(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_bytes", watched)
    write_atomic(tmp_path / "file.json", "text")
    assert while_written == [0o600]
    assert mode(tmp_path / "file.json") == 0o666 & ~umask


def test_a_directory_is_private_until_it_is_opened_up_with_all_in_it(tmp_path: Path, umask: int) -> None:
    made = make_private(tmp_path / "policy")
    assert mode(tmp_path / "policy") == 0o700
    for name in ("weights", "nested/weights"):
        path = tmp_path / "policy" / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
    open_up(tmp_path / "policy", made)
    found = {str(path.relative_to(tmp_path)): mode(path) for path in tmp_path.rglob("*")}
    folder, file = 0o777 & ~umask, 0o666 & ~umask
    assert found == {
        "policy": folder,
        "policy/nested": folder,
        "policy/weights": file,
        "policy/nested/weights": file,
    }
