"""JSON files of a run that may be missing, or still be written."""

import json
from pathlib import Path
from typing import Any

from rlhf.errors import CheckpointError


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file; none where there is no file. A last line that is not whole yet is left out.

    Raises:
        CheckpointError: another line is no JSON object, or the file cannot be read.
    """
    lines = _text(path).split("\n")
    whole, unfinished = lines[:-1], lines[-1]
    rows = []
    for number, line in enumerate([*whole, unfinished], start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise CheckpointError(f"{path}:{number}: not JSON ({error}); repair or move the file") from None
        if not isinstance(row, dict):
            raise CheckpointError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
        rows.append(row)
    return rows


def json_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; an empty one where there is no file.

    Raises:
        CheckpointError: it holds no JSON object, or cannot be read.
    """
    text = _text(path)
    if not text:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({error}); repair or move the file") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
