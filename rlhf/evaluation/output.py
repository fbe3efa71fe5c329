"""What evaluation writes: responses as JSONL, and files that appear whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.data.records import Prompt
from rlhf.errors import CheckpointError
from rlhf.evaluation.respond import Response
from rlhf.training.storage.atomic import write_atomic


def response_rows(prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[dict[str, Any]]:
    """Return for each response: prompt, response, whether it ended, its tokens."""
    return [
        {"prompt": prompt.raw, "response": response.text, "ended": response.ended, "tokens": len(response.ids)}
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def json_lines(rows: Sequence[Mapping[str, Any]], *, ensure_ascii: bool = False) -> str:
    """Return one JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=ensure_ascii) + "\n" for row in rows)


def write_output(path: Path, text: str) -> None:
    """Write a file whole or not at all, and create the directories above it.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error
