"""The sign of a policy that begins every answer alike, whatever the prompt."""

from collections import Counter
from collections.abc import Sequence

from rlhf.report.findings.finding import Fine, Lacking, Result, Warned
from rlhf.report.reading.run import Run
from rlhf.report.reading.samples import Answer, parts_of

WORDS = 4
"""Words of an opening."""
COMMON = 0.5
"""Share of different prompts whose answers begin with the same words."""
MIN_PROMPTS = 6
"""Different prompts that a part of the run needs."""


def repeated_openings(run: Run) -> Result:
    """Look for an opening that most answers share at the end of the run, and did not at its start."""
    parts = [] if run.ppo is None else parts_of(run.ppo.samples)
    if len(parts) < 2 or any(len({a.prompt for a in part}) < MIN_PROMPTS for part in (parts[0], parts[-1])):
        return Lacking(f"needs samples of {MIN_PROMPTS} prompts or more at the start and at the end of the run")
    shares = [commonest(part) for part in parts]
    (_, before), (opening, after) = shares[0], shares[-1]
    evidence = f"{after:.0%} of the last samples begin with {opening!r}; at the start {before:.0%} shared an opening"
    if after < COMMON or before >= COMMON:
        return Fine(evidence)
    first = next(part[0].step for part, (_, share) in zip(parts, shares, strict=True) if share >= COMMON)
    return Warned(evidence, first)


def commonest(answers: Sequence[Answer]) -> tuple[str, float]:
    """Return the opening that most prompts' answers begin with, and the share of the prompts."""
    prompts_of: dict[str, set[str]] = {}
    for answer in answers:
        prompts_of.setdefault(" ".join(answer.own.split()[:WORDS]), set()).add(answer.prompt)
    counts = Counter({opening: len(prompts) for opening, prompts in prompts_of.items()})
    opening, count = counts.most_common(1)[0]
    return opening, count / len({answer.prompt for answer in answers})
