"""Files and directories that appear on disk whole or not at all, even when the process is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from safetensors import SafetensorError

from rlhf.disk import fsync, make_private, open_up, write_atomic
from rlhf.errors import CheckpointError
from rlhf.training.storage.listing import not_ours, write_listing

REPLACED = ".old"
"""Suffix of a checkpoint that is moved aside while a new one takes its name."""


def make_directory(path: Path) -> None:
    """Make a directory and those above it; their entries are on the disk when this returns."""
    missing = [each for each in (path, *path.absolute().parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for made in reversed(missing):
        fsync(made.absolute().parent)


def write_output(path: Path, text: str | bytes) -> None:
    """Write a file whole or not at all, and create the directories above it.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield an empty sibling of `target`; when the block succeeds, it takes the name of `target`.

    The directory gets a list of its files. An older `target` is replaced if it holds only what such a list names;
    otherwise (it has files of the user's, or is a link) it is kept under another name, which is printed. When the block
    raises, the sibling is removed and `target` is untouched.

    Raises:
        CheckpointError: the disk is full, or the directory cannot be written.
    """
    temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        make_directory(target.parent)
        remove(temporary)
        mode = make_private(temporary)
        yield temporary
        write_listing(temporary)
        open_up(temporary, mode)
        _keep_what_is_not_ours(target)
        publish(temporary, target, target.with_name(f"{target.name}.tmp-replaced-{os.getpid()}"))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{target}: cannot be written: {error}; nothing was changed") from error
    finally:
        remove(temporary)


def publish(temporary: Path, target: Path, replaced: Path) -> None:
    """Give a directory whose files are on disk its final name, replacing an older one.

    Replacing a directory takes two renames. Between them the older one is called `replaced`.
    """
    if os.path.lexists(target):
        remove(replaced)
        os.replace(target, replaced)
    os.replace(temporary, target)
    fsync(target.parent)
    remove(replaced)


def remove(path: Path) -> None:
    """Remove a directory tree, a file or a link, if it is there; never follow a link."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, ignore_errors=True)


def _keep_what_is_not_ours(target: Path) -> None:
    """Give a directory with files of somebody else's, or what is no directory, another name."""
    reason = not_ours(target) if os.path.lexists(target) else None
    if reason is None:
        return
    names = (target.with_name(f"{target.name}.kept-{number}") for number in count(1))
    kept = next(name for name in names if not os.path.lexists(name))
    os.replace(target, kept)
    print(f"{target}: {reason}; what was there is kept as {kept}", flush=True)
