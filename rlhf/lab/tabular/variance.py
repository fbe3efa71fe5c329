"""Experiment: how the second moment of each rung's gradient estimate grows with the length of the episode, sampled.

The rungs are the functions of `functional/`, on sampled scores and rewards; `oracle/second_moments.py` derives the
exact numbers to compare with.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rlhf.functional import advantages
from rlhf.functional.losses import policy_gradient_loss
from rlhf.lab.estimate import Estimate
from rlhf.lab.section import Curve, Figure, Section, Settings, Table
from rlhf.lab.tabular.fits import estimate, fitted_line, logarithms, resampled_means
from rlhf.oracle import second_moments
from rlhf.training.randomness import generator

HORIZONS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
QUICK_HORIZONS = (4, 8, 16)
NUM_EPISODES, QUICK_EPISODES = 8192, 512
"""At each horizon; the second moment of a Gaussian is then known to sqrt(2 / 8192) = 1.6 %."""
LAMBDA = 0.9
"""Between 0 and 1; the bootstrap takes effect at 1 / (1 - lambda) = 10 steps, in the middle of the horizons."""
LEVEL = 0.99
"""Level of each interval, so that those of all rungs hold jointly with about 95 %."""

Rewards = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From rewards, values and mask [N, T] to the weights of the scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """An estimator of the ladder and its exact second moment."""

    name: str
    weights: Rewards
    exact: Callable[[int], float]
    """Second moment at a horizon."""
    formula: str
    growth: str
    """The formula for long episodes."""
    noise: float
    """Variance of each step's reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a rung's second moment grows in the sampled episodes."""

    moments: list[Estimate]
    """At each horizon."""
    exponent: Estimate
    exact_exponent: float
    """Of the formula, fitted over the same horizons."""


RUNGS = (
    Rung(
        name="whole return",
        weights=lambda rewards, _, mask: advantages.trajectory_return(rewards, mask, 1.0),
        exact=second_moments.whole_trajectory,
        formula="H^3",
        growth="H^3",
        noise=0.0,
    ),
    Rung(
        name="reward to go",
        weights=lambda rewards, _, mask: advantages.reward_to_go(rewards, mask, 1.0),
        exact=second_moments.reward_to_go,
        formula="H(H+1)(2H+1)/6",
        growth="H^3/3",
        noise=0.0,
    ),
    Rung(
        name="reward to go - exact value",
        weights=lambda rewards, values, mask: advantages.baseline(rewards, values, mask, 1.0),
        exact=second_moments.baseline,
        formula="n H(H+1)/2",
        growth="n H^2/2",
        noise=1.0,
    ),
    Rung(
        name=f"GAE, lambda {LAMBDA}",
        weights=lambda rewards, values, mask: advantages.gae(rewards, values, mask, 1.0, LAMBDA),
        exact=lambda horizon: second_moments.gae(horizon, LAMBDA),
        formula="n sum_k (H-k) lambda^(2k)",
        growth="n H/(1-lambda^2)",
        noise=1.0,
    ),
    Rung(
        name="GAE, lambda 0",
        weights=lambda rewards, values, mask: advantages.gae(rewards, values, mask, 1.0, 0.0),
        exact=lambda horizon: second_moments.gae(horizon, 0.0),
        formula="n H",
        growth="n H",
        noise=1.0,
    ),
)


def run(settings: Settings) -> Section:
    """Sample episodes of every length, and fit the exponents."""
    horizons = QUICK_HORIZONS if settings.quick else HORIZONS
    num_episodes = QUICK_EPISODES if settings.quick else NUM_EPISODES
    numbers = generator(settings.seed, "lab", "variance")
    measured = {rung.name: measure(rung, horizons, num_episodes, numbers) for rung in RUNGS}
    return Section(
        name="variance",
        title="How much the rungs scatter",
        statement="A gradient estimate that weighs every action by the whole return has a variance that grows with the "
        "cube of the episode's length; the reward to go leaves a third of it; with a value function it grows with the "
        "length itself.",
        formula="g = sum_t grad log pi(a_t | s_t) Psi_t,   E[g^2] = sum_t E[Psi_t^2]",
        method=f"{num_episodes} episodes at each H in {', '.join(map(str, horizons))}. Every action is one of two with "
        "probability 1/2 and a score of +1 or -1; it changes no reward, so E[g] = 0. A step's reward is 1, plus normal "
        "noise of variance n = 1 in the rungs that know the value: without noise they would be 0. g of an episode is "
        "the gradient of `policy_gradient_loss` on the rung's own function. An exponent is the slope of log mean g^2 "
        "against log H. Next to it is the same fit through the exact formula: a polynomial with lower terms has "
        f"another slope at these H than at infinity. Intervals: {100 * LEVEL:g} % bootstrap over episodes, so that "
        f"all {len(RUNGS)} hold jointly with 95 %. The two agree when each interval contains its exact slope.",
        tables=[_exponents(measured), _largest(measured, horizons)],
        figures=[_figure(measured, horizons)],
        finding=_finding(measured, horizons),
    )


def squared_gradients(rung: Rung, horizon: int, num_episodes: int, numbers: torch.Generator) -> Tensor:
    """Sample episodes and return g^2 of each, [N] float64."""
    shape = (num_episodes, horizon)
    signs = torch.randint(2, shape, generator=numbers).double() * 2.0 - 1.0
    rewards = 1.0 + rung.noise**0.5 * torch.randn(shape, dtype=torch.float64, generator=numbers)
    values = torch.arange(horizon, 0, -1, dtype=torch.float64).expand(shape)
    mask = torch.ones(shape, dtype=torch.bool)
    # One parameter per episode, so that one backward pass gives the estimate of each. At theta = 0 both actions have
    # probability 1/2, and d/dtheta log sigmoid(2 * theta * sign) is the sign.
    theta = torch.zeros(num_episodes, 1, dtype=torch.float64, requires_grad=True)
    logprobs = F.logsigmoid(2.0 * theta * signs)
    weights = rung.weights(rewards, values, mask)
    loss = policy_gradient_loss(logprobs, logprobs.detach(), weights, mask, num_tokens=1.0).loss
    (gradient,) = torch.autograd.grad(loss, theta)
    return gradient.squeeze(1).square()


def measure(rung: Rung, horizons: tuple[int, ...], num_episodes: int, numbers: torch.Generator) -> Growth:
    """Measure the second moment at every horizon, and its exponent."""
    means, resamples = [], []
    for horizon in horizons:
        squares = squared_gradients(rung, horizon, num_episodes, numbers)
        means.append(squares.mean())
        resamples.append(resampled_means(squares, numbers))
    points, drawn, places = torch.stack(means), torch.stack(resamples, 1), logarithms(horizons)
    exact = torch.tensor([rung.exact(horizon) for horizon in horizons], dtype=torch.float64)
    slope = fitted_line(places, points.log()).slope
    return Growth(
        moments=[estimate(points[k], drawn[:, k], LEVEL) for k in range(len(horizons))],
        exponent=estimate(slope, fitted_line(places, drawn.log()).slope, LEVEL),
        exact_exponent=float(fitted_line(places, exact.log()).slope),
    )


def _exponents(measured: dict[str, Growth]) -> Table:
    header = ["Psi_t", "E[g^2]", "for long H", "slope of the exact formula", "measured slope"]
    rows = []
    for rung in RUNGS:
        found = measured[rung.name]
        rows.append([rung.name, rung.formula, rung.growth, f"{found.exact_exponent:.3f}", found.exponent.shown()])
    return Table(title="Exponents", header=header, rows=rows)


def _largest(measured: dict[str, Growth], horizons: tuple[int, ...]) -> Table:
    """Show the second moments themselves, at the shortest, a middle and the longest horizon."""
    chosen = [0, len(horizons) // 2, len(horizons) - 1]
    header = ["Psi_t"]
    for k in chosen:
        header += [f"H = {horizons[k]}: exact", "measured"]
    rows = []
    for rung in RUNGS:
        row = [rung.name]
        for k in chosen:
            row += [f"{rung.exact(horizons[k]):,.6g}", measured[rung.name].moments[k].shown()]
        rows.append(row)
    return Table(title="The second moments themselves", header=header, rows=rows)


def _figure(measured: dict[str, Growth], horizons: tuple[int, ...]) -> Figure:
    x = [float(horizon) for horizon in horizons]
    curves = []
    for rung in RUNGS:
        curves.append(Curve.through(rung.name, x, measured[rung.name].moments))
        curves.append(Curve(label="exact formula", x=x, y=[rung.exact(horizon) for horizon in horizons]))
    return Figure(
        name="variance",
        title="Second moment of the gradient estimate",
        x_label="H, steps of an episode",
        y_label="E[g^2]",
        curves=curves,
        log_x=True,
        log_y=True,
    )


def _finding(measured: dict[str, Growth], horizons: tuple[int, ...]) -> str:
    missed = [name for name, found in measured.items() if not found.exponent.holds(found.exact_exponent)]
    verdict = (
        f"Measured and derived slopes agree: all {len(measured)} intervals hold the slope of the exact formula."
        if not missed
        else f"Measured and derived slopes do not agree for: {', '.join(missed)}."
    )
    whole, to_go, value, between, single = (measured[rung.name] for rung in RUNGS)
    share = to_go.moments[-1].value / whole.moments[-1].value
    last = horizons[-1]
    exact_share = second_moments.reward_to_go(last) / second_moments.whole_trajectory(last)
    return (
        f"{verdict} At H = {last} the reward to go leaves {share:.3f} of the whole return's second moment (exactly "
        f"{exact_share:.3f}; 1/3 for long H). The lecture's last step needs a qualification: an exact value with "
        f"Monte Carlo returns still grows with slope {value.exponent.shown()}, as H(H+1)/2, because the noise of the "
        f"whole future stays in it. Growth as H needs the bootstrap: lambda 0 gives {single.exponent.shown()}, lambda "
        f"{LAMBDA} {between.exponent.shown()} over these H, on its way to 1 once H is far beyond 1/(1 - lambda)."
    )
