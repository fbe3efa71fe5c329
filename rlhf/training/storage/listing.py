"""Which files we wrote, with sizes and sha256 sums: they tell damage, and what is somebody else's."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

LISTING = "rlhf_files.json"
"""The file in a directory of ours that lists the others."""


class Entry(TypedDict):
    """What is known of a file."""

    size: int
    sha256: str


class Damaged(Exception):
    """Why files are not the ones that were written."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path) -> Entry:
    """Describe a file."""
    return {"size": path.stat().st_size, "sha256": file_sha256(path)}


def check_file(path: Path, entry: Mapping[str, Any], name: str | None = None) -> None:
    """Compare a file with what is known of it; `name` is what messages call it.

    Raises:
        Damaged: it is missing, or not the same.
    """
    name = name or path.name
    try:
        found = path.lstat()
    except OSError:
        raise Damaged(f"{name} is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise Damaged(f"{name} is not a regular file")
    if found.st_size != entry.get("size"):
        raise Damaged(f"{name} has {found.st_size} bytes, expected {entry.get('size')}")
    if file_sha256(path) != entry.get("sha256"):
        raise Damaged(f"the sha256 of {name} differs")


def write_listing(directory: Path) -> None:
    """List all files below a directory, in a file of its own."""
    listed = {name: entry_of(directory / name) for name in _files(directory)}
    (directory / LISTING).write_text(json.dumps({"files": listed}, indent=1) + "\n", encoding="utf-8")


def listed_files(directory: Path) -> dict[str, Entry] | None:
    """Return the files that we wrote into a directory, by their paths in it; None if it is not one of ours."""
    if directory.is_symlink():
        return None
    try:
        files = json.loads((directory / LISTING).read_bytes())["files"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    is_listing = isinstance(files, dict) and all(isinstance(entry, dict) for entry in files.values())
    return files if is_listing else None


def not_ours(path: Path) -> str | None:
    """Say what at a path was not written by us, None if nothing: a link, a file that is not listed, a changed file."""
    if path.is_symlink() or not path.is_dir():
        return f"{path.name} is {'a link' if path.is_symlink() else 'no directory'}"
    listed, found = listed_files(path) or {}, _files(path)
    if others := [name for name in found if name not in listed]:
        return f"{path.name}/{others[0]} is not a file of ours"
    try:
        for name in found:
            check_file(path / name, listed[name], f"{path.name}/{name}")
    except (OSError, Damaged) as reason:
        return str(reason)
    return None


def _files(directory: Path) -> list[str]:
    """Return the paths below a directory of all that is not a directory, in order, without the listing."""
    found = [
        str(Path(folder, name).relative_to(directory))
        for folder, folders, names in os.walk(directory)
        for name in [*names, *(name for name in folders if Path(folder, name).is_symlink())]
    ]
    return sorted(set(found) - {LISTING})
