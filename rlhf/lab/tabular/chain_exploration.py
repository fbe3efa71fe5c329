"""Experiment: episodes to solve the chain as its length grows, from a random policy, from a clone, and with resets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.lab.estimate import Estimate, shown
from rlhf.lab.section import Curve, Figure, Section, Settings, Table
from rlhf.lab.tabular.chain_runs import LEARNING_RATE, SOLVED, Budget, Solving, cloned_logits, solve_chain, spaced_start
from rlhf.lab.tabular.fits import estimate, fitted_line, logarithms, resampled_means
from rlhf.training.randomness import generator

BUDGET = Budget(num_seeds=64, batch=32, cap=2**17)
QUICK_BUDGET = Budget(num_seeds=4, batch=32, cap=2**13)
QUICK_PLACES = 2
"""Lengths of each start that the quick version tries, the shortest ones."""
ENOUGH = 0.5
"""A length enters the fit if at least this share of the runs solved it."""
SPACING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A way to begin, and the lengths to try with it."""

    name: str
    num_demonstrations: int
    """Demonstrations behind the cloned policy; 0 is the uniform policy."""
    spacing: int | None
    """Episodes begin at every `spacing`-th state; None for only the first."""
    lengths: tuple[int, ...]

    @property
    def is_reset(self) -> bool:
        """Whether episodes begin along the chain."""
        return self.spacing is not None

    @property
    def base(self) -> float:
        """The b in b^H, the episodes that waiting for the first success alone takes: 1 / pi(advance)."""
        return (self.num_demonstrations + 3) / (self.num_demonstrations + 1)


STARTS = (
    Start(name="random policy", num_demonstrations=0, spacing=None, lengths=(4, 6, 8, 9, 10, 12)),
    Start(name="clone of 1 demonstration", num_demonstrations=1, spacing=None, lengths=(6, 8, 10, 12, 14, 16)),
    Start(name="clone of 4", num_demonstrations=4, spacing=None, lengths=(12, 16, 20, 24, 28)),
    Start(name="clone of 16", num_demonstrations=16, spacing=None, lengths=(24, 32, 40, 48, 56, 64)),
    Start(name="resets to every state", num_demonstrations=0, spacing=1, lengths=(4, 8, 16, 24, 32, 48)),
    Start(
        name=f"resets to every {SPACING}th state", num_demonstrations=0, spacing=SPACING, lengths=(8, 16, 24, 32, 48)
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How the episodes of one start grow with the length."""

    points: list[Estimate]
    """Mean episodes at each length; if no run solved the chain, counted as if one had."""
    num_solved: list[int]
    is_fitted: list[bool]
    base: Estimate
    """b of the fit b^H."""
    power: Estimate
    """p of the fit H^p."""
    exponential_residual: float
    """Root mean square distance of log episodes from the exponential fit."""
    power_residual: float

    @property
    def law(self) -> str:
        """The law that fits the points better."""
        return "exponential" if self.exponential_residual < self.power_residual else "power"


def run(settings: Settings) -> Section:
    """Solve chains of every length from every start."""
    budget = QUICK_BUDGET if settings.quick else BUDGET
    lengths = {start.name: start.lengths[: QUICK_PLACES if settings.quick else None] for start in STARTS}
    grown = {}
    for start in STARTS:
        numbers = generator(settings.seed, "lab", "chain", start.name)
        runs = [_solved(start, length, budget, numbers) for length in lengths[start.name]]
        grown[start.name] = growth(lengths[start.name], runs, numbers)
    return Section(
        name="chain_exploration",
        title="Where episodes begin: exploration on a chain",
        statement="When H right choices in a row are needed before anything is rewarded, a policy that begins at "
        "random needs a number of episodes exponential in H, whatever the estimator. A policy cloned from "
        "demonstrations begins where reward is within reach, and resets to states along the way make the number "
        "polynomial.",
        formula="random policy: P(reward) = 3^-H        cloned from k demonstrations: ((k + 1) / (k + 3))^H",
        method=_method(budget),
        tables=[_fits(grown), _points(grown, lengths, budget)],
        figures=[_figure("chain_from_the_start", False, grown, lengths), _figure("chain_resets", True, grown, lengths)],
        finding=_finding(grown),
    )


def growth(lengths: tuple[int, ...], runs: list[Solving], numbers: torch.Generator) -> Growth:
    """Estimate the mean number of episodes at every length, and fit both laws.

    The mean is all episodes spent divided by the number of runs that solved the chain: the plain mean if all did, and
    the maximum-likelihood estimate for exponential waiting times if some were given up.
    """
    points, drawn, fitted = [], [], []
    for solving in runs:
        pairs = torch.stack([solving.episodes, solving.solved.double()], 1)
        resamples = _mean_episodes(resampled_means(pairs, numbers), len(pairs))
        points.append(estimate(_mean_episodes(pairs.mean(0), len(pairs)), resamples))
        drawn.append(resamples)
        fitted.append(bool(solving.solved.double().mean() >= ENOUGH))
    kept = [place for place, is_fitted in enumerate(fitted) if is_fitted]
    heights = torch.tensor([points[k].value for k in kept], dtype=torch.float64).log()
    resampled = torch.stack([drawn[k] for k in kept], 1).log()
    places = [float(lengths[k]) for k in kept]
    exponential, power = fitted_line(places, heights), fitted_line(logarithms(places), heights)
    return Growth(
        points=points,
        num_solved=[int(solving.solved.sum()) for solving in runs],
        is_fitted=fitted,
        base=estimate(exponential.slope.exp(), fitted_line(places, resampled).slope.exp()),
        power=estimate(power.slope, fitted_line(logarithms(places), resampled).slope),
        exponential_residual=float(exponential.residual),
        power_residual=float(power.residual),
    )


def _solved(start: Start, length: int, budget: Budget, numbers: torch.Generator) -> Solving:
    beginnings = None if start.spacing is None else spaced_start(length, start.spacing)
    return solve_chain(cloned_logits(length, start.num_demonstrations), beginnings, budget, numbers)


def _mean_episodes(means: Tensor, num_runs: int) -> Tensor:
    """Divide mean episodes by the share that solved, [..., 2] -> [...]; a resample with none counts as if one had."""
    return means[..., 0] / means[..., 1].clamp(min=1.0 / num_runs)


def _method(budget: Budget) -> str:
    return (
        "The chain has three actions: one advances, two end the episode without reward; the reward of 1 "
        "is at its end (`oracle.chain.chain`). REINFORCE with the reward to go on a table of logits, "
        f"{budget.batch} episodes per batch, learning rate {LEARNING_RATE:g} on the gradient summed over them. Solved: "
        f"the probability of the reward from the first state is at least {SOLVED:g} (counted in batches of "
        f"{budget.batch}). {budget.num_seeds} seeds; a run is given up after {budget.cap:,} episodes. The mean is all "
        "episodes spent divided by the number of runs that solved the chain, which for exponential waiting times "
        f"stays correct when some are given up; a length enters the fits when at least {100 * ENOUGH:g} % of its "
        "runs solved it. A demonstration advances in every state, and a clone of k has pi(advance) = (k + 1) / (k + "
        "3). The states of one demonstration are all states of the chain, so resets over a demonstration and over "
        f"the chain are the same law here; 'every {SPACING}th' is a demonstration cut only at every {SPACING}th state, "
        "like a text cut only between sentences. Both laws, b^H and H^p, are fitted to the logarithms; the "
        "distance is root mean square, in units of log episodes. Intervals: 95 % bootstrap over seeds."
    )


def _fits(grown: dict[str, Growth]) -> Table:
    header = ["start", "b of b^H", "first success alone", "distance", "p of H^p", "distance", "nearer"]
    rows = []
    for start in STARTS:
        found = grown[start.name]
        rows.append(
            [
                start.name,
                found.base.shown(),
                "" if start.is_reset else shown(start.base),
                f"{found.exponential_residual:.2f}",
                found.power.shown(),
                f"{found.power_residual:.2f}",
                found.law,
            ]
        )
    return Table(title="Both laws", header=header, rows=rows)


def _points(grown: dict[str, Growth], lengths: dict[str, tuple[int, ...]], budget: Budget) -> Table:
    rows = []
    for name, found in grown.items():
        for place, length in enumerate(lengths[name]):
            num_solved = found.num_solved[place]
            mean = found.points[place].shown() if num_solved else f"above {budget.cap:,}"
            fitted = "yes" if found.is_fitted[place] else "no"
            rows.append([name, f"{length}", mean, f"{num_solved} of {budget.num_seeds}", fitted])
    header = ["start", "H", "episodes", "solved", "in the fits"]
    return Table(title="Episodes until the chain is solved", header=header, rows=rows)


def _figure(name: str, is_log: bool, grown: dict[str, Growth], lengths: dict[str, tuple[int, ...]]) -> Figure:
    """Draw every start over H, or those with resets over log H, where a power law is a straight line."""
    curves = []
    for start in STARTS:
        if is_log and not start.is_reset:
            continue
        found = grown[start.name]
        kept = [place for place, is_fitted in enumerate(found.is_fitted) if is_fitted]
        x = [float(lengths[start.name][k]) for k in kept]
        curves.append(Curve.through(start.name, x, [found.points[k] for k in kept]))
        if start.name == STARTS[0].name:
            curves.append(Curve(label="3^H", x=x, y=[start.base**length for length in x]))
    title = "Episodes with resets, both axes logarithmic" if is_log else "Episodes until the chain is solved"
    labels = {"x_label": "H, length of the chain", "y_label": "episodes"}
    return Figure(name=name, title=title, curves=curves, log_x=is_log, log_y=True, **labels)


def _finding(grown: dict[str, Growth]) -> str:
    random, resets = grown[STARTS[0].name], [start for start in STARTS if start.is_reset]
    laws = [grown[start.name].law for start in resets]
    agrees = random.law == "exponential" and set(laws) == {"power"}
    clones = [start for start in STARTS if start.num_demonstrations]
    bases = ", ".join(f"k = {start.num_demonstrations}: {grown[start.name].base.shown()}" for start in clones)
    num_exponential = sum(grown[start.name].law == "exponential" for start in clones)
    powers = " and ".join(f"{start.name} {grown[start.name].power.shown()}" for start in resets)
    return (
        f"{'The numbers agree with the statement' if agrees else 'The numbers do not show what the statement says'}: "
        f"from a random policy the number of episodes is nearer to the {random.law} law, with base "
        f"{random.base.shown()} (the wait for the first success alone: {STARTS[0].base:g}; at small H learning "
        f"after it counts too, and flattens the fit), and with resets {laws.count('power')} of {len(laws)} are nearer "
        f"to the power law, with exponents: {powers}. The clones have the bases {bases}; {num_exponential} of "
        f"{len(clones)} are nearer to the exponential. A clone that errs with a fixed probability at every step errs "
        "somewhere with a probability that grows with H: a smaller base but the same law, unless k grows with H."
    )
