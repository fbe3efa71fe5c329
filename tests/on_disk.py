"""What runs leave on the disk, as tests read and write it: rows of JSONL, metrics, contents."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, values: Iterable[dict[str, Any]]) -> Path:
    """Write a JSONL file, and return its path."""
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def metrics(directory: Path) -> list[dict[str, Any]]:
    """The metrics of a run."""
    return rows(directory / "metrics.jsonl")


def timeless(directory: Path) -> list[dict[str, Any]]:
    """The metrics that two equal runs have alike: all but `seconds`."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in metrics(directory)]


def contents(directory: Path) -> dict[str, bytes]:
    """The bytes of every file below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def tensors(directory: Path) -> dict[str, bytes]:
    """The bytes of every file of tensors below a directory."""
    return {name: read for name, read in contents(directory).items() if name.endswith(".safetensors")}


def digests(directory: Path) -> dict[str, str]:
    """The sha256 of what a PPO run saved at its end, and of its samples."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("policy", "samples", "critic")
        for path in sorted((directory / name).glob("*"))
    }


def matches(pattern: str, text: str) -> None:
    """Check that a text holds a pattern, and show the text if not."""
    assert re.search(pattern, text), f"{pattern!r} is not in:\n{text}"
