"""The comparison of an evaluation: win rates as a forest plot, and every number in a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rlhf.report.charts.forest import Estimate, forest
from rlhf.report.reading.run import Run, judge_name, win_rates_of

LABELS = {
    "gold_win_rate": "win rate against {first}, gold judge",
    "gold_gain": "gold judge: score above {first}",
    "embedding_win_rate": "win rate against {first}, embedding judge",
    "reward_win_rate": "win rate against {first}, reward model",
    "kl": "KL to the reference, nats per sequence",
    "length": "length, tokens",
    "gold": "gold judge: score",
    "gold_positive": "gold judge: share favourable",
    "reward": "reward model: score",
    "kl_per_token": "KL to the reference, nats per token",
    "perplexity_median": "perplexity, median",
    "perplexity_mean": "perplexity, mean",
    "disfluent": "share less fluent than 95% of human text",
    "repeated_bigrams": "repeated bigrams",
    "repetitive": "share more repetitive than 95% of human text",
    "distinct_2": "distinct bigrams over all",
    "ended": "share ended by EOS",
}
"""In the order of the table; other measurements follow under their own names."""
NUM_SHOWN = 6
HUMAN = "human text"
"""The column of what people wrote, where the evaluation has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSection:
    """What a comparison shows."""

    run: str
    num_prompts: str
    policies: list[str]
    shown: list[list[str]]
    """The first rows: a label, then a cell for each policy."""
    more: list[list[str]]
    plot: Markup | None


def comparison_section(run: Run, key: str) -> ComparisonSection | None:
    """Return the comparison of a run; None where it has none."""
    if run.evaluation is None:
        return None
    comparison = run.evaluation.comparison
    policies: Mapping[str, Mapping[str, Any]] = comparison["policies"]
    first = next(iter(policies))
    human = comparison.get("human")
    columns = {**policies, HUMAN: human} if isinstance(human, Mapping) else policies
    present = dict.fromkeys(name for numbers in policies.values() for name in numbers)
    names = [*(name for name in LABELS if name in present), *(name for name in present if name not in LABELS)]
    rows = [
        [_label(name, first), *(_cell(numbers.get(name)) for numbers in columns.values())]
        for name in names
        if any(numbers.get(name) is not None for numbers in columns.values())
    ]
    estimates = win_rates(comparison)
    plot = forest(f"{key}-forest", f"Win rates against {first}", estimates) if estimates else None
    number = str(comparison.get("num_prompts", "?"))
    return ComparisonSection(
        run=run.name,
        num_prompts=number,
        policies=list(columns),
        shown=rows[:NUM_SHOWN],
        more=rows[NUM_SHOWN:],
        plot=plot,
    )


def win_rates(comparison: Mapping[str, Any]) -> list[Estimate]:
    """Return the win rates of every policy by every judge."""
    return [
        Estimate(label=f"{policy}, {judge_name(judge)}", mean=rate["mean"], low=rate["low"], high=rate["high"])
        for policy, numbers in comparison["policies"].items()
        for judge, rate in win_rates_of(numbers).items()
    ]


def _label(name: str, first: str) -> str:
    """Return the label of a row; of a judge that is not in the table, from its name."""
    if name in LABELS:
        return LABELS[name].format(first=first)
    judge = name.removesuffix("_win_rate")
    return name.replace("_", " ") if judge == name else f"win rate against {first}, {judge_name(judge)}"


def _cell(value: object) -> str:
    if isinstance(value, Mapping) and {"mean", "low", "high"} <= value.keys():
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
