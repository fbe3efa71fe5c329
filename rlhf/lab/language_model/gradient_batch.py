"""Beginnings of film reviews to sample from, written for the laboratory, and the files that stages read."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

OPENERS = (
    "I thought",
    "We felt that",
    "Honestly,",
    "In the end",
    "To my mind",
    "As for me,",
    "They say",
    "On the whole",
)
SUBJECTS = (
    "the movie",
    "the plot",
    "the acting",
    "the music",
    "the ending",
    "the hero",
    "the script",
    "the camera work",
)


def opener_rows() -> list[dict[str, str]]:
    """Return 64 different prompts: every beginning with every subject."""
    return [{"prompt": f"{opener} {subject} was"} for opener in OPENERS for subject in SUBJECTS]


def write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
