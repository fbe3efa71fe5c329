"""One file on the disk: synced, whole or not at all, private while it is written."""

import os
import stat
from pathlib import Path


def fsync(path: Path) -> None:
    """Wait until the contents of a file, or the entries of a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, text: str | bytes) -> None:
    """Write `text` (as UTF-8) so that `path` holds either its old contents or all of the new.

    While it is written its owner alone can read it; then it gets the mode that the umask gives.

    Raises:
        OSError: the file cannot be written; the old contents are untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        temporary.chmod(0o600)
        temporary.write_bytes(text if isinstance(text, bytes) else text.encode())
        temporary.chmod(mode)
        fsync(temporary)
        os.replace(temporary, path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_private(directory: Path) -> int:
    """Make a directory that its owner alone can enter; return the mode that the umask gives, for `open_up`."""
    directory.mkdir()
    mode = stat.S_IMODE(directory.stat().st_mode)
    directory.chmod(0o700)
    return mode


def open_up(directory: Path, mode: int) -> None:
    """Give a directory and all below it a directory's mode (files: without x), and wait until it is on the disk.

    Libraries make files of their own modes: safetensors 0600.
    """
    for folder, _, names in os.walk(directory, topdown=False):
        for name in names:
            readable_as_its_folder(Path(folder, name), mode)
            fsync(Path(folder, name))
        Path(folder).chmod(mode)
        fsync(Path(folder))


def readable_as_its_folder(path: Path, mode: int | None = None) -> None:
    """Give a file the mode of its directory, without x; leave a link alone."""
    if not path.is_symlink():
        path.chmod((path.parent.stat().st_mode if mode is None else mode) & 0o666)
