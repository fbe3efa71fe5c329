"""The comparison of an evaluation: win rates as a forest plot, and every number in a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from rlhf.report.charts.forest import Estimate, forest
from rlhf.report.reading.run import Run, independent_first, judge_name, judges_of, win_rates_of

OF_JUDGES = {
    "win_rate": "win rate against {first}, {judge}",
    "length_controlled": "win rate at equal length, {judge}",
    "gain": "score above {first}, {judge}",
    "score": "score, {judge}",
    "positive": "share favourable, {judge}",
}
"""What each judge says; the first row of each judge comes before all other rows."""
LABELS = {
    "kl": "KL to the reference, nats per sequence",
    "length": "length, tokens",
    "kl_per_token": "KL to the reference, nats per token",
    "kl_bound": "KL to its policy at most, nats per sequence",
    "entropy": "entropy, nats per token",
    "human_perplexity": "perplexity of human text under the policy, median",
    "fluency_ratio": "perplexity over human text's, fluency model",
    "fluency_median": "perplexity, fluency model, median",
    "perplexity_median": "perplexity, trigrams, median",
    "perplexity_mean": "perplexity, trigrams, mean",
    "disfluent": "share less fluent than 95% of human text",
    "repeated_bigrams": "repeated bigrams",
    "repetitive": "share more repetitive than 95% of human text",
    "distinct_1": "distinct words over all",
    "distinct_2": "distinct bigrams over all",
    "ended": "share ended by EOS",
}
"""What is measured without a judge, in the order of the table; other measurements follow under their own names."""
AUDIT = {
    "num_pairs": "pairs of answers compared",
    "ties": "share of ties",
    "prefers_longer": "longer answer wins",
    "length_correlation": "correlation of score and length",
    "flipped": "verdict changes with the order",
    "first_place": "first place wins",
}
"""What is known about each judge."""
NUM_SHOWN = 6
HUMAN = "human text"
"""The column of what people wrote, where the evaluation has one."""
STRENGTH = "log strength (Bradley-Terry)"
Rows = list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FurtherTable:
    """A table below the numbers of the policies."""

    title: str
    header: list[str]
    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSection:
    """What a comparison shows."""

    run: str
    num_prompts: str
    policies: list[str]
    shown: Rows
    """The first rows: a label, then a cell for each policy."""
    more: Rows
    further: list[FurtherTable]
    """Every policy against every other, and the audit of the judges."""
    notes: list[str]
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
    rows = [row for row in _rows(list(columns.values()), first) if any(cell != "-" for cell in row[1:])]
    estimates = win_rates(comparison)
    notes = comparison.get("notes")
    return ComparisonSection(
        run=run.name,
        num_prompts=str(comparison.get("num_prompts", "?")),
        policies=list(columns),
        shown=rows[:NUM_SHOWN],
        more=rows[NUM_SHOWN:],
        further=[*_matrices(comparison), *_audit(comparison)],
        notes=[str(note) for note in notes] if isinstance(notes, list) else [],
        plot=forest(f"{key}-forest", f"Win rates against {first}", estimates) if estimates else None,
    )


def _rows(columns: Sequence[Mapping[str, Any]], first: str) -> Rows:
    """Return the rows of all numbers: the win rates, what needs no judge up to the length, then the rest."""
    said = [judges_of(numbers) for numbers in columns]
    judges = independent_first(dict.fromkeys(judge for each in said for judge in each))

    def of_judges(key: str) -> Rows:
        labels = [OF_JUDGES[key].format(first=first, judge=judge_name(judge)) for judge in judges]
        cells = [[_cell(each.get(judge, {}).get(key)) for each in said] for judge in judges]
        return [[label, *row] for label, row in zip(labels, cells, strict=True)]

    present = dict.fromkeys(name for numbers in columns for name in numbers if name != "judges")
    names = [*(name for name in LABELS if name in present), *(name for name in present if name not in LABELS)]
    plain = [
        [LABELS.get(name, name.replace("_", " ")), *(_cell(numbers.get(name)) for numbers in columns)] for name in names
    ]
    near = sum(name in ("kl", "length") for name in names)
    win_rate, *others = OF_JUDGES
    return [*of_judges(win_rate), *plain[:near], *(row for key in others for row in of_judges(key)), *plain[near:]]


def _matrices(comparison: Mapping[str, Any]) -> list[FurtherTable]:
    """Return for each judge the win rates of every policy against every other, the strongest policy first."""
    rates, rankings = _mapping(comparison, "win_rates"), _mapping(comparison, "rankings")
    tables = []
    for judge in independent_first(rates):
        strengths = _mapping(rankings, judge)
        if not strengths:  # two policies: the matrix says what the table says
            continue
        names = list(rates[judge])
        order = sorted(names, key=lambda name: -_mapping(strengths, name).get("mean", 0.0))
        rows = [
            [name, *(_cell(rates[judge][name].get(other)) for other in names), _cell(strengths.get(name))]
            for name in order
        ]
        title = f"Row wins against column, {judge_name(judge)}"
        tables.append(FurtherTable(title=title, header=["", *names, STRENGTH], rows=rows))
    return tables


def _audit(comparison: Mapping[str, Any]) -> list[FurtherTable]:
    audits = _mapping(comparison, "audits")
    judges = independent_first(audits)
    rows = [[title, *(_cell(audits[judge].get(key)) for judge in judges)] for key, title in AUDIT.items()]
    rows += [
        [
            f"agrees with the {judge_name(other)}",
            *(_cell(_mapping(audits[judge], "agreement").get(other)) for judge in judges),
        ]
        for other in judges
    ]
    rows = [row for row in rows if any(cell != "-" for cell in row[1:])]
    header = ["", *(judge_name(judge) for judge in judges)]
    return [FurtherTable(title="Audit of the judges", header=header, rows=rows)] if rows else []


def _mapping(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}


def win_rates(comparison: Mapping[str, Any]) -> list[Estimate]:
    """Return the win rates of every policy by every judge."""
    return [
        Estimate(label=f"{policy}, {judge_name(judge)}", mean=rate["mean"], low=rate["low"], high=rate["high"])
        for policy, numbers in comparison["policies"].items()
        for judge, rate in win_rates_of(numbers).items()
    ]


def _cell(value: object) -> str:
    if isinstance(value, Mapping) and {"mean", "low", "high"} <= value.keys():
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
