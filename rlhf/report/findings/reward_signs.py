"""Signs of a reward that is exploited, or teaches nothing; and of a critic that knows nothing."""

import numpy as np

from rlhf.report.findings.finding import Fine, Lacking, Result, Warned
from rlhf.report.findings.signs import Course, course, from_to, ppo_series, watched
from rlhf.report.reading.run import PROXY, Run, judge_name, shown_rate, trained_policies, win_rates_of

LENGTH_CHANGE = 1.3
"""Responses that are this many times as long, or as short, as at the start have changed their length."""
LENGTH_CORRELATION = 0.4
"""A correlation of a reward with length, over the last steps, above which length explains much of it."""
HARDLY_VARIES = 0.02
"""Scores vary hardly where their spread is below this share of where it began (or all are equal)."""
EXPLAINS_NOTHING = 0.05
"""Explained variance below which a critic is no better than a constant."""
CRITIC_STEPS = 20
"""Steps that a critic gets before it is judged."""


def judges_part(run: Run) -> Result:
    """Look for an independent judge that falls while the trained reward rises."""
    stage = run.evaluation
    if stage is None:
        return Lacking("needs comparison.json of `rlhf evaluate` with an independent (gold) judge")
    policies = list(trained_policies(stage.comparison).items())
    (first, _), (name, last) = policies[0], policies[-1]
    rates = win_rates_of(last)
    proxy = rates.pop(PROXY, None)
    if not rates:
        return Lacking("needs an independent judge: set `gold` in the configuration of `rlhf evaluate`")
    steps = [] if run.ppo is None else run.ppo.metrics.steps
    scores = ppo_series(run, "objective/scores")
    rose = proxy["low"] > 0.5 if proxy else len(scores) > 0 and course(scores).end > course(scores).start
    everyone = {**rates, PROXY: proxy} if proxy else rates
    told = f"{name} against {first} wins "
    told += ", ".join(f"{shown_rate(rate)} by the {judge_name(judge)}" for judge, rate in everyone.items())
    if any(rate["high"] < 0.5 for rate in rates.values()) and rose:
        return Warned(told, steps[-1] if steps else None)
    return Fine(told)


def length_exploited(run: Run) -> Result:
    """Look for a length that moves the way a reward pays."""
    names = _reward_names(run)
    lengths = ppo_series(run, "val/response_length")
    correlations = {name: ppo_series(run, f"reward/{name}/length_correlation") for name in names}
    known = {name: float(np.mean(series.last_part(0.25))) for name, series in correlations.items() if len(series)}
    if not known:
        return Lacking("needs reward/NAME/length_correlation, found none")
    name = max(known, key=lambda name: abs(known[name]))
    pays = known[name]

    def look(length: Course) -> Result:
        evidence = f"responses went {from_to(length, 'tokens')}; reward {name} correlates {pays:+.2f} with length"
        factor = length.end / length.start if length.start > 0 else 1.0
        grew, shrank = factor > LENGTH_CHANGE, factor < 1 / LENGTH_CHANGE
        if not ((pays > LENGTH_CORRELATION and grew) or (pays < -LENGTH_CORRELATION and shrank)):
            return Fine(evidence)
        limit = length.start * (LENGTH_CHANGE if grew else 1 / LENGTH_CHANGE)
        return Warned(evidence, length.first(lambda values: values > limit if grew else values < limit))

    return watched(run, lengths.name, look)


def hardly_varies(run: Run) -> Result:
    """Look for scores that are nearly all the same."""

    def look(course: Course) -> Result:
        evidence = f"the standard deviation of the scores within a batch went {from_to(course)}"
        limit = HARDLY_VARIES * max(course.start, float(np.max(course.smooth.values)) / 4)
        if course.end > limit:
            return Fine(evidence)
        return Warned(evidence, course.first(lambda spread: spread <= limit))

    return watched(run, "objective/scores_std", look)


def critic_explains_nothing(run: Run) -> Result:
    """Look for a critic whose values say nothing about the returns, after it had time to learn."""
    if run.ppo is not None and not len(ppo_series(run, "val/explained_variance")) and run.ppo.metrics.rows:
        return Lacking("the run has no critic (no val/explained_variance)")

    def look(course: Course) -> Result:
        late = float(np.median(course.smooth.values[-max(3, len(course.smooth) // 3) :]))
        evidence = f"explained variance went {from_to(course)}; median of the last third {late:.3f}"
        if late >= EXPLAINS_NOTHING:
            return Fine(evidence)
        return Warned(evidence, int(course.smooth.steps[min(CRITIC_STEPS, len(course.smooth)) - 1]))

    return watched(run, "val/explained_variance", look, min_steps=CRITIC_STEPS)


def _reward_names(run: Run) -> list[str]:
    ending, start = "/length_correlation", "reward/"
    names = [] if run.ppo is None else run.ppo.metrics.names
    return [name[len(start) : -len(ending)] for name in names if name.startswith(start) and name.endswith(ending)]
