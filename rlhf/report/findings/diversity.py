"""The sign of a policy that repeats itself: fewer different pairs of words in its samples."""

from collections.abc import Sequence
from itertools import pairwise

from rlhf.report.findings.finding import Fine, Lacking, Result, Warned
from rlhf.report.reading.run import Run
from rlhf.report.reading.samples import Answer, parts_of

LEFT = 0.75
"""Share of the first distinct-2 that must be left."""
MIN_PAIRS = 60
"""Pairs of words that a part of the run needs."""


def diversity_lost(run: Run) -> Result:
    """Look for samples whose distinct-2 fell clearly since the start of the run."""
    parts = [] if run.ppo is None else [_pairs(part) for part in parts_of(run.ppo.samples)]
    if len(parts) < 2 or min(len(parts[0][1]), len(parts[-1][1])) < MIN_PAIRS:
        return Lacking(f"needs samples of {MIN_PAIRS} pairs of words or more at the start and at the end of the run")
    number = min(len(pairs) for _, pairs in parts if len(pairs) >= MIN_PAIRS)  # the share falls with the amount of text
    shares = [(step, len(set(pairs[:number])) / number) for step, pairs in parts if len(pairs) >= MIN_PAIRS]
    (_, before), (_, after) = shares[0], shares[-1]
    evidence = f"distinct-2 of {number} pairs of words in the samples went from {before:.2f} to {after:.2f}"
    if after >= LEFT * before:
        return Fine(evidence)
    return Warned(evidence, next(step for step, share in shares if share < LEFT * before))


def _pairs(answers: Sequence[Answer]) -> tuple[int, list[tuple[str, str]]]:
    """Return the first step of a part, and the pairs of neighbouring words in its answers."""
    texts = [answer.own.lower().split() for answer in answers]
    return answers[0].step or 0, [pair for words in texts for pair in pairwise(words)]
