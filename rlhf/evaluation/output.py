"""What evaluation writes: responses as JSONL."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.data.records import Prompt
from rlhf.evaluation.respond import Response

Floats = NDArray[np.float64]


def response_rows(prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[dict[str, Any]]:
    """Return for each response: prompt, response, whether it ended, its tokens."""
    return [
        {"prompt": prompt.raw, "response": response.text, "ended": response.ended, "tokens": len(response.ids)}
        for prompt, response in zip(prompts, responses, strict=True)
    ]


def judged_rows(rows: Sequence[Mapping[str, Any]], kl: Floats, scores: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """Return the rows with the KL of each response, and its score by every judge that gave one (NaN: none)."""
    judged = []
    for place, row in enumerate(rows):
        given = {judge: float(numbers[place]) for judge, numbers in scores.items() if not np.isnan(numbers[place])}
        judged.append({**row, "kl": float(kl[place]), "scores": given})
    return judged


def json_lines(rows: Sequence[Mapping[str, Any]], *, ensure_ascii: bool = False) -> str:
    """Return one JSON object per line."""
    return "".join(json.dumps(row, ensure_ascii=ensure_ascii) + "\n" for row in rows)
