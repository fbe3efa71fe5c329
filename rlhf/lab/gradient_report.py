"""What the gradients of the rungs say: ratios and cosines with intervals, a table, figures, and the finding."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlhf.evaluation.bootstrap import Interval, mean_interval
from rlhf.lab.gradient_statistics import (
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
STEPS = (("trajectory", "reward_to_go"), ("reward_to_go", "baseline"), ("baseline", "gae, lambda 0.95"),
         ("gae, lambda 0.95", "gae, lambda 0"), ("reward_to_go", "rloo"), ("rloo", "group"))  # fmt: skip
"""Pairs of rungs whose ratios are compared on the same minibatches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The collected batch."""

    num_episodes: int
    num_tokens: int
    num_weights: int
    """Numbers in a gradient."""
    score: float
    """Mean, before KL."""
    score_std: float
    kl: float
    """Nats a sequence, to the reference."""
    explained_variance: float
    """Of the returns by the critic, on this batch, which it has not learned from."""
    kl_share: float
    """Root mean square of what trajectory and reward_to_go differ by, as a share of that of trajectory itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Inner products [M, M] of a rung's minibatch gradients."""

    gram: Floats
    """With each other."""
    cross: Floats
    """Rows: this rung's; columns: those of the reference rung on the same minibatches."""
    reference: Floats
    """Of the reference rung's with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is measured of a rung."""

    ratio: Interval
    """Signal to noise of a minibatch."""
    resamples: Floats
    """[R] of the ratio; the same minibatches are drawn for every rung."""
    to_rest: Interval
    """Cosine of a minibatch's gradient to that of the other minibatches."""
    to_reference: Interval
    """The same to the reference rung's gradient of the other minibatches."""
    halves: float
    """Cosine of two disjoint halves of the batch."""
    whole: float
    """Cosine to the reference rung's gradient on the same whole batch."""


def figures_of(measured: Mapping[str, Measured], seed: int) -> dict[str, Figures]:
    """Return the figures of every rung."""
    num = len(next(iter(measured.values())).gram)
    counts = resample_counts(num, NUM_RESAMPLES, np.random.default_rng(seed))
    return {name: _figures(one, counts, seed) for name, one in measured.items()}


def _figures(one: Measured, counts: Floats, seed: int) -> Figures:
    resamples = signal_to_noise(one.gram, counts)
    low, high = np.quantile(resamples, [0.025, 0.975])
    return Figures(
        ratio=Interval(float(signal_to_noise(one.gram)[0]), float(low), float(high)),
        resamples=resamples,
        to_rest=_mean(cosines_to_rest(one.gram, one.gram, one.gram), seed),
        to_reference=_mean(cosines_to_rest(one.gram, one.cross, one.reference), seed),
        halves=cosine_of_halves(one.gram, NUM_SPLITS, np.random.default_rng(seed)),
        whole=cosine_of_sums(one.gram, one.cross, one.reference),
    )


def table(figures: Mapping[str, Figures], episodes_each: int) -> Table:
    """Return a row a rung."""
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
                _shown(each.ratio),
                f"{episodes_each / each.ratio.mean:.0f}" if each.ratio.low > 0 else "not told from infinity",
                _shown(each.to_rest),
                _shown(each.to_reference),
                f"{each.halves:.3f}",
                f"{each.whole:.3f}",
            ]
            for name, each in figures.items()
        ],
    )


def painted(
    measured: Mapping[str, Measured], figures: Mapping[str, Figures], episodes_each: int, seed: int
) -> list[Figure]:
    """Return the ratios of all rungs, and how the cosine grows with the episodes of a minibatch."""
    bars = [_bar(name, place, each.ratio) for place, (name, each) in enumerate(figures.items(), 1)]
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


def _bar(name: str, place: int, ratio: Interval) -> Curve:
    """Return a level line as wide as most of its place, with the interval around it."""
    ends = [place - 0.35, place + 0.35]
    return Curve(label=name, x=ends, y=[ratio.mean] * 2, low=[ratio.low] * 2, high=[ratio.high] * 2)


def _growing(name: str, gram: Floats, episodes_each: int, seed: int) -> Curve:
    """Return the cosine to the rest of minibatches of 1, 2, 4, ... times the size, at least four of each."""
    sizes = [size for size in (1, 2, 4, 8) if len(gram) // size >= 4]
    grams = [merged(gram, size) for size in sizes]
    cosines = [_mean(cosines_to_rest(each, each, each), seed) for each in grams]
    return Curve(
        label=name,
        x=[float(size * episodes_each) for size in sizes],
        y=[cosine.mean for cosine in cosines],
        low=[cosine.low for cosine in cosines],
        high=[cosine.high for cosine in cosines],
    )


def finding(figures: Mapping[str, Figures], batch: Batch) -> str:
    """Say which steps up the ladder raise the ratio, which lower it, and which this batch does not tell apart."""
    lines = [_compared(lower, upper, figures) for lower, upper in STEPS]
    ratios = {name: each.ratio.mean for name, each in figures.items()}
    best, worst = max(ratios, key=lambda name: ratios[name]), min(ratios, key=lambda name: ratios[name])
    climbs = [ratios["trajectory"], ratios["reward_to_go"], ratios["baseline"], ratios["gae, lambda 0.95"]]
    told = [_difference(lower, upper, figures) for lower, upper in STEPS[:3]]
    agrees = "do" if climbs == sorted(climbs) else "do not"
    return (
        f"The highest ratio has {best} ({ratios[best]:.3f}), the lowest {worst} ({ratios[worst]:.3f}). "
        + " ".join(lines)
        + f" The score stands on the last token alone, so trajectory and reward_to_go differ by KL terms, which are "
        f"{batch.kl_share:.1%} of what weighs a token here. From trajectory to GAE (lambda 0.95) the estimates should "
        f"climb: on this batch they {agrees}, and {sum(low > 0 for low, _ in told)} of the 3 steps exceed their "
        "intervals."
    )


def _compared(lower: str, upper: str, figures: Mapping[str, Figures]) -> str:
    low, high = _difference(lower, upper, figures)
    verdict = "raises it" if low > 0 else "lowers it" if high < 0 else "is not told apart"
    difference = figures[upper].ratio.mean - figures[lower].ratio.mean
    return f"{lower} -> {upper}: {difference:+.3f} [{low:+.3f}, {high:+.3f}], {verdict}."


def _difference(lower: str, upper: str, figures: Mapping[str, Figures]) -> tuple[float, float]:
    low, high = np.quantile(figures[upper].resamples - figures[lower].resamples, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: Floats, seed: int) -> Interval:
    return mean_interval(values, generator=np.random.default_rng(seed))


def _shown(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
