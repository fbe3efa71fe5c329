"""What a policy said: samples of PPO's steps, and answers of an evaluation."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.printable import text_of
from rlhf.report.reading.files import json_lines

_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One response to one prompt."""

    prompt: str
    response: str
    step: int | None = None
    """The PPO step that sampled it; None in an evaluation."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By judge; `score` is that of PPO."""
    kl: float | None = None
    """Nats to the reference, summed over the response."""
    tokens: int | None = None
    ended: bool | None = None
    forced: str = ""
    """The text that a reset put at its start."""
    trace: Mapping[str, Sequence[Any]] | None = None
    """Numbers of each token, if they were written."""

    @property
    def score(self) -> float | None:
        """The first score."""
        return next(iter(self.scores.values()), None)

    @property
    def own(self) -> str:
        """What the policy itself wrote, without a forced start."""
        return self.response[len(self.forced) :] if self.response.startswith(self.forced) else self.response

    @property
    def length(self) -> int:
        """Tokens, or characters where tokens were not counted."""
        return len(self.response) if self.tokens is None else self.tokens


PARTS = 5
"""Samples are looked at in this many parts of the run."""


def parts_of(samples: Sequence[Answer]) -> list[list[Answer]]:
    """Return the samples that say anything, in parts of the run of equally many steps; parts without any are left out.

    Args:
        samples: of all steps.
    """
    said = [answer for answer in samples if answer.response.strip()]
    steps = sorted({answer.step or 0 for answer in said})
    groups = [steps[place * len(steps) // PARTS : (place + 1) * len(steps) // PARTS] for place in range(PARTS)]
    return [part for part in ([a for a in said if a.step in set(group)] for group in groups) if part]


def read_samples(directory: Path) -> list[Answer]:
    """Return the samples of all steps, in their order.

    Raises:
        CheckpointError: a file cannot be read.
    """
    found = []
    for path in sorted(directory.glob("step-*.jsonl")):
        step = _STEP.search(path.name)
        if step is not None:
            found += [answer_of(row, int(step.group(1))) for row in json_lines(path)]
    return sorted(found, key=lambda answer: answer.step or 0)


def read_answers(path: Path) -> list[Answer]:
    """Return the answers of one policy of an evaluation.

    Raises:
        CheckpointError: the file cannot be read.
    """
    return [answer_of(row, None) for row in json_lines(path)]


def answer_of(row: Mapping[str, Any], step: int | None) -> Answer:
    """Return a row of a samples file; what is missing or of another kind is left out."""
    scores = {name: number for name, value in _given_scores(row).items() if (number := _number(value)) is not None}
    tokens, trace = row.get("tokens"), row.get("trace")
    return Answer(
        prompt=text_of(row.get("prompt", "")),
        response=text_of(row.get("response", "")),
        step=step,
        scores=scores,
        kl=_number(row.get("kl")),
        tokens=tokens if isinstance(tokens, int) else None,
        ended=row["ended"] if isinstance(row.get("ended"), bool) else None,
        forced=text_of(row.get("forced", "")),
        trace=trace if isinstance(trace, Mapping) and isinstance(trace.get("text"), list) else None,
    )


def _given_scores(row: Mapping[str, Any]) -> Mapping[str, object]:
    given = row.get("scores")
    return given if isinstance(given, Mapping) else {"score": row.get("score")}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
