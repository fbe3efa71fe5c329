"""The sign of a policy that repeats itself: fewer different pairs of words in its samples."""

from collections.abc import Sequence
from itertools import pairwise

from rlhf.report.findings.finding import Fine, Lacking, Result, Warned
from rlhf.report.reading.run import Run, trained_policies
from rlhf.report.reading.samples import Answer, parts_of

LEFT = 0.75
"""Share of the first distinct-2 that must be left."""
MIN_PAIRS = 60
"""Pairs of words that a part of the run needs."""
Part = tuple[int | None, list[tuple[str, str]]]


def diversity_lost(run: Run) -> Result:
    """Look for a distinct-2 that fell clearly: of the samples over the run, else of the answers of an evaluation."""
    parts = [] if run.ppo is None else [_pairs(part) for part in parts_of(run.ppo.samples)]
    if _is_enough(parts):
        return _compared("the samples", parts)
    parts = [_pairs(answers) for answers in _evaluated(run)]
    if _is_enough(parts):
        return _compared("the held-out answers", parts)
    return Lacking(
        f"needs {MIN_PAIRS} pairs of words or more in the samples at the start and at the end of the run, or in the "
        "answers of an evaluation"
    )


def _is_enough(parts: Sequence[Part]) -> bool:
    return len(parts) > 1 and min(len(parts[0][1]), len(parts[-1][1])) >= MIN_PAIRS


def _compared(where: str, parts: Sequence[Part]) -> Result:
    number = min(len(pairs) for _, pairs in parts if len(pairs) >= MIN_PAIRS)  # the share falls with the amount of text
    shares = [(step, len(set(pairs[:number])) / number) for step, pairs in parts if len(pairs) >= MIN_PAIRS]
    (_, before), (_, after) = shares[0], shares[-1]
    evidence = f"distinct-2 of {number} pairs of words in {where} went from {before:.2f} to {after:.2f}"
    if after >= LEFT * before:
        return Fine(evidence)
    return Warned(evidence, next(step for step, share in shares if share < LEFT * before))


def _evaluated(run: Run) -> list[Sequence[Answer]]:
    """Return the held-out answers of the first and of the last policy; nothing where an evaluation has not both."""
    stage = run.evaluation
    found = [] if stage is None else [stage.answers.get(name, []) for name in trained_policies(stage.comparison)]
    return [found[0], found[-1]] if len(found) > 1 and found[0] and found[-1] else []


def _pairs(answers: Sequence[Answer]) -> Part:
    """Return the first step of a part (None of an evaluation), and the pairs of neighbouring words in its answers."""
    texts = [answer.own.lower().split() for answer in answers]
    return answers[0].step, [pair for words in texts for pair in pairwise(words)]
