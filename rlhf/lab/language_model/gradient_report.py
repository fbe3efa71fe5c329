"""The report on the rungs' gradients: ratios and cosines with intervals, a table, figures, and the finding."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rlhf.evaluation.statistics.bootstrap import mean_interval
from rlhf.lab.estimate import Estimate
from rlhf.lab.language_model.gradient_batch import Batch
from rlhf.lab.language_model.gradient_statistics import (
    Floats,
    cosine_of_halves,
    cosine_of_sums,
    cosines_to_rest,
    merged,
    resample_counts,
    signal_to_noise,
)
from rlhf.lab.section import Curve, Figure, Table

NUM_RESAMPLES = 2000
NUM_SPLITS = 200
"""Random halves of the batch."""
LADDER = ("trajectory", "reward_to_go", "baseline", "gae, lambda 0.95")
"""The lecture's order."""
STEPS = (*pairwise(LADDER), ("gae, lambda 0.95", "gae, lambda 0"), ("reward_to_go", "rloo"), ("rloo", "group"))
"""Pairs of rungs that are compared on the same minibatches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerProducts:
    """Inner products [M, M] of a rung's minibatch gradients."""

    gram: Floats
    """With each other."""
    cross: Floats
    """Rows: this rung's; columns: those of the reference rung on the same minibatches."""
    reference: Floats
    """The reference rung's with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    """The measurements of a rung."""

    ratio: Estimate
    """Signal to noise of a minibatch."""
    to_rest: Estimate
    """Cosine of a minibatch's gradient to that of the other minibatches."""
    to_reference: Estimate
    """The same to the reference rung's gradient of the other minibatches."""
    cosines: Floats
    """[M] the cosines behind that mean."""
    halves: float
    """Cosine of two disjoint halves of the batch."""
    whole: float
    """Cosine to the reference rung's gradient on the same whole batch."""


def scatter_of(measured: Mapping[str, InnerProducts], seed: int) -> dict[str, Scatter]:
    """Return the scatter of every rung."""
    num = len(next(iter(measured.values())).gram)
    counts = resample_counts(num, NUM_RESAMPLES, np.random.default_rng(seed))
    return {name: _scatter(one, counts, seed) for name, one in measured.items()}


def _scatter(one: InnerProducts, counts: Floats, seed: int) -> Scatter:
    resamples = signal_to_noise(one.gram, counts)
    low, high = np.quantile(resamples, [0.025, 0.975])
    cosines = cosines_to_rest(one.gram, one.cross, one.reference)
    return Scatter(
        ratio=Estimate(value=float(signal_to_noise(one.gram)[0]), low=float(low), high=float(high)),
        to_rest=_mean(cosines_to_rest(one.gram, one.gram, one.gram), seed),
        to_reference=_mean(cosines, seed),
        cosines=cosines,
        halves=cosine_of_halves(one.gram, NUM_SPLITS, np.random.default_rng(seed)),
        whole=cosine_of_sums(one.gram, one.cross, one.reference),
    )


def table(scatter: Mapping[str, Scatter], episodes_each: int) -> Table:
    """Return one row per rung."""
    return Table(
        header=[
            "rung",
            f"signal to noise of {episodes_each} episodes",
            "episodes for a ratio of 1",
            "cosine to the rest of the batch",
            "cosine to the rest's rloo",
            "cosine of two halves",
            "cosine to rloo, same batch",
        ],
        rows=[
            [
                name,
                f"{each.ratio:.3f}",
                f"{episodes_each / each.ratio.value:.0f}" if each.ratio.low > 0 else "cannot be told from infinity",
                f"{each.to_rest:.3f}",
                f"{each.to_reference:.3f}",
                f"{each.halves:.3f}",
                f"{each.whole:.3f}",
            ]
            for name, each in scatter.items()
        ],
    )


def figures(
    measured: Mapping[str, InnerProducts], scatter: Mapping[str, Scatter], episodes_each: int, seed: int
) -> list[Figure]:
    """Return the ratios of all rungs, and how the cosine grows with the episodes of a minibatch."""
    bars = [_bar(name, place, each.ratio) for place, (name, each) in enumerate(scatter.items(), 1)]
    return [
        Figure(
            name="gradient_signal_to_noise",
            title="Gradient signal to noise, rung by rung",
            x_label="rung",
            y_label=f"|G|^2 / tr(Sigma), {episodes_each} episodes",
            curves=bars,
        ),
        Figure(
            name="gradient_cosine",
            title="Cosine of a minibatch's gradient to that of the rest of the batch",
            x_label="episodes of the minibatch",
            y_label="cosine",
            curves=[_growing(name, one.gram, episodes_each, seed) for name, one in measured.items()],
            log_x=True,
        ),
    ]


def _bar(name: str, place: int, ratio: Estimate) -> Curve:
    """Return a horizontal line over most of its place on the axis, with the interval around it."""
    return Curve.through(name, [place - 0.35, place + 0.35], [ratio, ratio])


def _growing(name: str, gram: Floats, episodes_each: int, seed: int) -> Curve:
    """Return the cosine to the rest of minibatches of 1, 2, 4 times the size; fewer than 8 give no interval."""
    sizes = [size for size in (1, 2, 4) if len(gram) // size >= 8]
    grams = [merged(gram, size) for size in sizes]
    cosines = [_mean(cosines_to_rest(each, each, each), seed) for each in grams]
    return Curve.through(name, [float(size * episodes_each) for size in sizes], cosines)


def finding(scatter: Mapping[str, Scatter], batch: Batch, seed: int) -> str:
    """Say which steps up the ladder bring a minibatch's gradient nearer to the rest's, and which are not told apart."""
    ratios = {name: each.ratio.value for name, each in scatter.items()}
    gains = {pair: _gain(*pair, scatter, seed) for pair in STEPS}
    climbs = [ratios[name] for name in LADDER]
    told = sum(gains[pair].low > 0 for pair in pairwise(LADDER))
    return (
        "Signal to noise: "
        + ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        + ". What each step changes in the cosine to the rest's rloo gradient, paired by minibatch: "
        + "; ".join(f"{lower} -> {upper} {_verdict(gain)}" for (lower, upper), gain in gains.items())
        + ". Only the last token carries the score, so trajectory and reward_to_go differ by KL terms, which are "
        f"{batch.kl_share:.1%} of a token's weight here. From {LADDER[0]} to {LADDER[-1]} the ratios should climb: "
        f"on this batch they {'do' if climbs == sorted(climbs) else 'do not'}, and {told} of the {len(LADDER) - 1} "
        "steps raise the cosine beyond the interval."
    )


def _gain(lower: str, upper: str, scatter: Mapping[str, Scatter], seed: int) -> Estimate:
    return _mean(scatter[upper].cosines - scatter[lower].cosines, seed)


def _verdict(gain: Estimate) -> str:
    verdict = "better" if gain.low > 0 else "worse" if gain.high < 0 else "not told apart"
    return f"{gain:+.3f}, {verdict}"


def _mean(values: Floats, seed: int) -> Estimate:
    interval = mean_interval(values, generator=np.random.default_rng(seed))
    return Estimate(value=interval.mean, low=interval.low, high=interval.high)
