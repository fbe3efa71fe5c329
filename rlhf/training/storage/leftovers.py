"""What a killed process leaves in a run directory, told by its name, and removed by the next one that has the lock."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from rlhf.training.storage.atomic import remove

RESULTS = ("policy", "critic", "reward_model", "base_model")
"""Directories that a stage saves at its end."""
FOLDERS = (".", "samples", "figures")
"""Where a run writes single files."""
_FILE = re.compile(r"\..+\.tmp-\d+")
_RESULT = re.compile(rf"(?P<name>{'|'.join(RESULTS)})\.tmp-(?P<replaced>replaced-)?\d+")
_CHECKPOINT = re.compile(r"step-\d{6,}\.tmp-.*")


def sweep(directory: Path, checkpoints: Path) -> None:
    """Remove what a killed process left half written, or was about to remove; the run's lock must be held.

    Raises:
        OSError: something cannot be removed.
    """
    for path in list(_left(directory, checkpoints)):
        name = _RESULT.fullmatch(path.name)
        if name is not None and name["replaced"] and not os.path.lexists(path.with_name(name["name"])):
            os.replace(path, path.with_name(name["name"]))  # its replacement had not come yet
        else:
            remove(path)


def unfinished_checkpoints(checkpoints: Path) -> list[Path]:
    """Return the checkpoints that were being written or removed."""
    names = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return [path for path in names if _CHECKPOINT.fullmatch(path.name)]


def _left(directory: Path, checkpoints: Path) -> Iterator[Path]:
    yield from unfinished_checkpoints(checkpoints)
    for folder in (directory / name for name in FOLDERS):
        if folder.is_dir() and not folder.is_symlink():
            yield from (path for path in folder.iterdir() if _FILE.fullmatch(path.name) and path.is_file())
    yield from (path for path in directory.iterdir() if _RESULT.fullmatch(path.name))
