"""The sign of a policy that begins every answer alike, whatever the prompt."""

from collections import Counter
from collections.abc import Sequence

from rlhf.report.findings.finding import Fine, Lacking, Result, Warned
from rlhf.report.reading.run import Run
from rlhf.report.reading.samples import Answer

WORDS = 4
"""Words of an opening."""
COMMON = 0.5
"""Share of different prompts whose answers begin with the same words."""
MIN_PROMPTS = 6
"""Different prompts that a part of the run needs."""
PARTS = 5
"""The samples are looked at in this many parts of the run."""


def repeated_openings(run: Run) -> Result:
    """Look for an opening that most answers share at the end of the run, and did not at its start."""
    samples = [] if run.ppo is None else [answer for answer in run.ppo.samples if answer.response.strip()]
    steps = sorted({answer.step or 0 for answer in samples})
    groups = [steps[place * len(steps) // PARTS : (place + 1) * len(steps) // PARTS] for place in range(PARTS)]
    parts = [part for part in ([a for a in samples if a.step in set(group)] for group in groups) if part]
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
        own = answer.response[len(answer.forced) :] if answer.response.startswith(answer.forced) else answer.response
        prompts_of.setdefault(" ".join(own.split()[:WORDS]), set()).add(answer.prompt)
    counts = Counter({opening: len(prompts) for opening, prompts in prompts_of.items()})
    opening, count = counts.most_common(1)[0]
    return opening, count / len({answer.prompt for answer in answers})
