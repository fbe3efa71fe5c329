"""Signs of a policy that went wrong: entropy, KL, EOS, clip fraction, numbers that are no numbers."""

import numpy as np

from rlhf.report.findings.finding import Fine, Lacking, Result, Warned
from rlhf.report.findings.signs import Course, from_to, ppo_series, score_gain, watched
from rlhf.report.reading.run import Run

ENTROPY_LEFT = 0.3
"""Entropy below this share of where it began has collapsed; runs that ended well kept more than half."""
RUNAWAY_KL = 30.0
"""Nats per sequence. Runs that ended well are at 5 to 15 (docs/results.md; Ziegler et al. 2019: 6 to 10)."""
GROWING_KL = 15.0
"""Nats per sequence above which a KL that doubled in the last quarter of the run has no hold."""
ENDED_LEFT = 0.5
"""EOS is lost where the share of ended responses is below this share of where it began."""
ENDED_AT_ALL = 0.2
"""The share of ended responses at the start from which on it can be lost."""
MOST_CLIPPED = 0.3
"""Share of clipped tokens above which much of each batch teaches nothing; usual are 0.02 to 0.2."""
CLIP_STEPS = 10
"""Steps from which on both fifths, of which a rise of the score is told, have two."""
LEAST_CLIPPED = 1e-5
"""Below this, over the whole run, the updates may be too small to move the policy."""


def entropy_collapse(run: Run) -> Result:
    """Look for an entropy that fell to a small share of where it began."""

    def look(course: Course) -> Result:
        left = course.end / course.start if course.start > 0 else 1.0
        evidence = f"entropy went {from_to(course, 'nats per token')}: {left:.0%} of the start"
        if left >= ENTROPY_LEFT:
            return Fine(evidence)
        return Warned(evidence, course.first(lambda values: values < ENTROPY_LEFT * course.start))

    return watched(run, "objective/entropy", look)


def kl_runaway(run: Run) -> Result:
    """Look for a KL beyond what useful policies have, or one that doubled in the last quarter."""

    def look(course: Course) -> Result:
        values = course.smooth.values
        before = float(values[round(0.75 * (len(values) - 1))])
        evidence = f"KL to the reference went {from_to(course, 'nats per sequence')}"
        if course.end > RUNAWAY_KL:
            return Warned(f"{evidence}, above {RUNAWAY_KL:g}", course.first(lambda kl: kl > RUNAWAY_KL))
        if course.end > GROWING_KL and course.end > 2 * before:
            return Warned(
                f"{evidence}, and more than doubled in the last quarter (it was {before:.3g})",
                course.first(lambda kl: kl > before),
            )
        return Fine(evidence)

    return watched(run, "objective/kl", look)


def eos_lost(run: Run) -> Result:
    """Look for responses that stopped ending."""

    def look(course: Course) -> Result:
        evidence = f"the share of responses that end went {from_to(course)}"
        if course.start < ENDED_AT_ALL:
            return Fine(f"{evidence}; it was below {ENDED_AT_ALL:.0%} from the start, so there was none to lose")
        if course.end >= ENDED_LEFT * course.start:
            return Fine(evidence)
        return Warned(evidence, course.first(lambda share: share < ENDED_LEFT * course.start))

    return watched(run, "val/share_ended", look)


def clip_fraction(run: Run) -> Result:
    """Look for updates that are clipped too often; or never, while the score does not rise."""

    def look(course: Course) -> Result:
        evidence = f"the share of clipped tokens went {from_to(course)}"
        if course.end > MOST_CLIPPED:
            return Warned(f"{evidence}, above {MOST_CLIPPED:g}", course.first(lambda share: share > MOST_CLIPPED))
        middle = float(np.median(course.smooth.values))
        gain, error = score_gain(run)
        if middle < LEAST_CLIPPED and _is_clipping(run) and gain < 2 * error:
            return Warned(f"{evidence}, with a median of {middle:.2g}, and the score did not rise", None)
        return Fine(evidence)

    return watched(run, "policy/clipfrac_avg", look, min_steps=CLIP_STEPS)


def not_finite(run: Run) -> Result:
    """Look for metrics that were NaN or infinite."""
    if run.ppo is None or not run.ppo.metrics.rows:
        return Lacking("needs metrics.jsonl of a PPO stage")
    bad = run.ppo.metrics.not_finite()
    if not bad:
        return Fine(f"all numbers of {len(run.ppo.metrics.rows)} rows are finite")
    first = min(bad)
    return Warned(f"{len(bad)} rows hold NaN or infinity; at step {first}: {', '.join(bad[first])}", first)


def first_ratio(run: Run) -> Result:
    """Look for a first update whose ratio is not 1."""
    series = ppo_series(run, "val/first_ratio_deviation")
    if not len(series):
        return Lacking("needs val/first_ratio_deviation, found none")
    largest = float(series.values.max())
    if largest == 0:
        return Fine(f"the ratio of the first update was exactly 1 at all {len(series)} steps")
    first = int(series.steps[np.flatnonzero(series.values > 0)[0]])
    return Warned(f"|ratio - 1| of the first update was up to {largest:.3g}; it should be exactly 0", first)


def _is_clipping(run: Run) -> bool:
    """Whether the run has more than one update a step and clips them; without a config, yes."""
    config = {} if run.ppo is None else run.ppo.config
    several = int(config.get("epochs", 4)) * int(config.get("minibatches", 2)) > 1
    return several and config.get("clip_range", 0.2) is not None and config.get("objective", "ppo") == "ppo"
