"""Experiment: where naive policy gradient, surrogate and PPO break, over learning rates and epochs per batch."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from rlhf.functional.losses import policy_gradient_loss, policy_loss
from rlhf.lab.estimate import Estimate, shown
from rlhf.lab.section import Curve, Figure, Section, Settings, Table
from rlhf.lab.tabular.fits import mean_estimate
from rlhf.lab.tabular.tiny_languages import HORIZON, KL_COEF, VOCABULARY, Ends, Size, languages, train
from rlhf.oracle.expectation import Objective
from rlhf.training.randomness import generator

CLIP_RANGE = 0.2
EPOCHS = (1, 4, 16)
"""Gradient steps on a batch."""
SIZE = Size(learning_rates=(0.3, 1.0, 3.0, 10.0, 30.0), num_seeds=10, num_batches=100, num_episodes=64)
QUICK_SIZE = Size(learning_rates=(1.0, 10.0), num_seeds=2, num_batches=3, num_episodes=8)
BROKEN = 0.5
"""A cell holds when it closes at least this share of what the best cell closes."""

NAIVE, SURROGATE, CLIPPED = "naive policy gradient", "surrogate, no clip", f"PPO, clip {CLIP_RANGE}"
OBJECTIVES: dict[str, Objective] = {
    NAIVE: policy_gradient_loss,
    SURROGATE: partial(policy_loss, clip_range=None),
    CLIPPED: partial(policy_loss, clip_range=CLIP_RANGE),
}

Cell = tuple[int, str, int]
"""Epochs, objective, index of the learning rate."""
Cells = dict[Cell, Estimate]


def run(settings: Settings) -> Section:
    """Train every cell, and say which of them hold."""
    size = QUICK_SIZE if settings.quick else SIZE
    drawn = languages(size.num_seeds, settings.seed)
    ends: dict[tuple[int, str], Ends] = {}
    for epochs in EPOCHS:
        for name, objective in OBJECTIVES.items():
            ends[epochs, name] = train(objective, epochs, size, drawn, settings.seed)
    closed = _estimates({key: end.closed for key, end in ends.items()}, settings.seed)
    moved = _estimates({key: end.largest_kl for key, end in ends.items()}, settings.seed)
    rates = size.learning_rates
    states = {cell: verdict(closed, cell) for cell in closed}
    return Section(
        name="stability",
        title="Several steps on one batch",
        statement="The policy gradient is valid at the policy that sampled the batch. Naive gradient steps that keep "
        "using an old batch, or are too large, leave the region where it is valid and break the policy; importance "
        "weights with a clip keep the new policy near the old one, so a batch serves several epochs.",
        formula="naive        -sum_t A_t log pi(a_t | s_t)\n"
        "surrogate    -sum_t A_t r_t,   r_t = pi(a_t | s_t) / pi_old(a_t | s_t)\n"
        "PPO          -sum_t min(A_t r_t, A_t clip(r_t, 1 - c, 1 + c))",
        method=f"{size.num_seeds} tiny languages ({VOCABULARY} tokens, at most {HORIZON} of them, a standard normal "
        f"score for each response), one per seed and the same in every cell. J = E[score] - {KL_COEF} KL to the "
        f"uniform policy, where training starts: {size.num_batches} batches of {size.num_episodes} sampled responses, "
        "leave-one-out advantages, plain gradient ascent on a table of logits, each step on the whole batch. Shown "
        "is the share of the gap to the optimum that was closed, (J - J_start) / (J_best - J_start), with J "
        "enumerated: 1 is the optimal policy, 0 the start, below 0 worse than the start. A cell holds when its mean is "
        f"at least {BROKEN:g} of the best cell's, as decided before the run. Any other cell is slow when it is "
        "above 0 and a larger learning rate closes more with the same objective and epochs; else it **breaks**. The "
        "coefficient of the penalty was chosen in trials: without one all cells end in local optima of J, which says "
        "nothing about stability. KL: "
        "the largest KL(old || new) of any batch, nats per response. Intervals: 95 % bootstrap over seeds. With 1 "
        "epoch all three objectives have the same gradient, and their columns are equal.",
        tables=[_closed_table(closed, states, rates), _kl_table(moved, rates), _edge_table(states, rates)],
        figures=[_figure(closed, epochs, rates) for epochs in EPOCHS],
        finding=_finding(closed, states, moved, rates),
    )


def verdict(closed: Cells, cell: Cell) -> str:
    """Return `holds`, `breaks` or `slow`, as the method defines them."""
    epochs, name, place = cell
    own = closed[cell].value
    if own >= BROKEN * max(estimate.value for estimate in closed.values()):
        return "holds"
    larger = [estimate.value for (e, n, k), estimate in closed.items() if (e, n) == (epochs, name) and k > place]
    return "slow" if own > 0.0 and max(larger, default=own) > own else "breaks"


def largest_holding(states: dict[Cell, str], epochs: int, name: str, rates: tuple[float, ...]) -> float | None:
    """Return the largest learning rate whose cell holds, None where none does."""
    holding = [rate for place, rate in enumerate(rates) if states[epochs, name, place] == "holds"]
    return max(holding, default=None)


def _estimates(samples: dict[tuple[int, str], Tensor], seed: int) -> Cells:
    """Average each row of the samples [L, K] over its seeds, with the same resamples of seeds for every cell."""
    return {
        (epochs, name, place): mean_estimate(sample, generator(seed, "lab", "stability", "intervals"))
        for (epochs, name), rows in samples.items()
        for place, sample in enumerate(rows)
    }


def _closed_table(closed: Cells, states: dict[Cell, str], rates: tuple[float, ...]) -> Table:
    def cell(key: Cell) -> str:
        state = {"holds": "", "breaks": " **breaks**", "slow": " slow"}[states[key]]
        return closed[key].shown(2) + state

    return _table("Share of the gap to the optimum that was closed", cell, rates)


def _kl_table(moved: Cells, rates: tuple[float, ...]) -> Table:
    return _table("Largest KL of a batch, nats per response", lambda key: moved[key].shown(2), rates)


def _table(title: str, cell: Callable[[Cell], str], rates: tuple[float, ...]) -> Table:
    rows = [
        [f"{epochs}", f"{rate:g}", *(cell((epochs, name, place)) for name in OBJECTIVES)]
        for epochs in EPOCHS
        for place, rate in enumerate(rates)
    ]
    return Table(title=title, header=["epochs", "learning rate", *OBJECTIVES], rows=rows)


def _edge_table(states: dict[Cell, str], rates: tuple[float, ...]) -> Table:
    rows = []
    for epochs in EPOCHS:
        edges = [largest_holding(states, epochs, name, rates) for name in OBJECTIVES]
        rows.append([f"{epochs}", *("none" if edge is None else f"{edge:g}" for edge in edges)])
    return Table(title="Largest learning rate that holds", header=["epochs", *OBJECTIVES], rows=rows)


def _figure(closed: Cells, epochs: int, rates: tuple[float, ...]) -> Figure:
    places = range(len(rates))
    curves = [Curve.through(name, rates, [closed[epochs, name, k] for k in places]) for name in OBJECTIVES]
    curves.append(Curve(label="optimum", x=list(rates), y=[1.0] * len(rates)))
    return Figure(
        name=f"stability_{epochs}",
        title=f"{epochs} epoch{'s' if epochs > 1 else ''} per batch",
        x_label="learning rate",
        y_label="share of the gap to the optimum closed",
        curves=curves,
        log_x=True,
    )


def _finding(closed: Cells, states: dict[Cell, str], moved: Cells, rates: tuple[float, ...]) -> str:
    most = EPOCHS[-1]
    edges = {name: largest_holding(states, most, name, rates) for name in OBJECTIVES}
    shown_edges = ", ".join(f"{name} {_up_to(edge)}" for name, edge in edges.items())
    agrees = (edges[CLIPPED] or 0.0) > max(edges[NAIVE] or 0.0, edges[SURROGATE] or 0.0)
    once = largest_holding(states, EPOCHS[0], NAIVE, rates)
    best = {name: max((closed[most, name, k].value, k) for k in range(len(rates))) for name in OBJECTIVES}
    tops = ", ".join(f"{name} {value:.2f} at {rates[k]:g}" for name, (value, k) in best.items())
    last = len(rates) - 1
    return (
        f"{'The numbers agree with the statement' if agrees else 'The numbers do not show what the statement says'}: "
        f"with {most} epochs per batch these learning rates hold: {shown_edges}. Best cells of {most} epochs: {tops}. "
        f"With 1 epoch all three hold {_up_to(once)}. At the first step of a batch every ratio is 1 and nothing is "
        f"clipped, so the clip cannot restrain a single step that is too large: at a learning rate of {rates[last]:g} "
        f"PPO's largest KL of a batch is {shown(moved[most, CLIPPED, last].value, 2)} nats, and it closes "
        f"{closed[most, CLIPPED, last].value:.2f}. Importance weights without a clip: at {rates[1]:g} and {most} "
        f"epochs they close {closed[most, SURROGATE, 1].value:.2f}, the naive gradient "
        f"{closed[most, NAIVE, 1].value:.2f}, PPO {closed[most, CLIPPED, 1].value:.2f}."
    )


def _up_to(edge: float | None) -> str:
    return "at none" if edge is None else f"up to {edge:g}"
