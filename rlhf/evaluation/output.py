"""What evaluation writes: responses as JSONL."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.data.records import Prompt
from rlhf.evaluation.respond import Response


def response_rows(prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[dict[str, Any]]:
    """Return for each response: prompt, response, whether it ended, its tokens."""
    return [
        {"prompt": prompt.raw, "response": response.text, "ended": response.ended, "tokens": len(response.ids)}
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def json_lines(rows: Sequence[Mapping[str, Any]], *, ensure_ascii: bool = False) -> str:
    """Return one JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=ensure_ascii) + "\n" for row in rows)
