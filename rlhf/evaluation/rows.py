"""The tables of a comparison: which rows, in which order, under which names."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rlhf.config.judges import PROXY
from rlhf.evaluation.statistics.bootstrap import Interval
from rlhf.evaluation.summary import PolicySummary
from rlhf.evaluation.table import Cell, markdown_table, text_table

if TYPE_CHECKING:
    from rlhf.evaluation.compare import Comparison

HUMAN = "human text"
"""Header of the human column; no policy can have this name."""
NUM_FIRST = 5
"""Rows that matter most; the others stand below."""
FIRST_JUDGES = 2
"""Win rates among them."""
OF_JUDGES = {
    "win_rate": "win rate against {first}, {judge}",
    "length_controlled": "win rate at equal length, {judge}",
    "score": "score, {judge}",
    "gain": "score above {first}, {judge}",
    "positive": "share favourable, {judge}",
}
"""What each judge says."""
OF_TEXTS = {
    "kl": "KL to the reference, nats per sequence",
    "fluency_ratio": "perplexity over human text's, fluency model",
    "distinct_2": "distinct-2",
    "human_perplexity": "perplexity of human text under the policy, median",
    "length": "length, tokens",
    "ended": "share ended by EOS",
    "kl_bound": "KL to its policy at most, nats per sequence",
    "kl_per_token": "KL to the reference, nats per token",
    "entropy": "entropy, nats per token",
    "fluency_median": "perplexity, fluency model, median",
    "perplexity_median": "perplexity, trigrams, median",
    "perplexity_mean": "perplexity, trigrams, mean",
    "disfluent": "share less fluent than 95 % of human text",
    "repeated_bigrams": "repeated bigrams",
    "repetitive": "share more repetitive than 95 % of human text",
    "distinct_1": "distinct-1",
}
"""What is measured without a judge, in the order of importance."""
_MATTER = ("kl", "fluency_ratio", "distinct_2")
_AUDIT = {
    "num_pairs": "pairs of answers compared",
    "ties": "share of ties",
    "prefers_longer": "longer answer wins",
    "length_correlation": "correlation of score and length",
    "flipped": "verdict changes with the order",
    "first_place": "first place wins",
}
Row = list[Cell]
Table = Callable[[Sequence[str], Sequence[Sequence[Cell]]], str]


def judge_title(judge: str) -> str:
    """Return how a judge is called in tables."""
    return "reward model" if judge == PROXY else f"{judge} judge"


def text(comparison: "Comparison") -> str:
    """Return all tables for a terminal."""
    first, rest = rows(comparison)
    lines = text_table(_header(comparison), [*first, *rest]).splitlines()
    main = "\n".join([*lines[: 2 + len(first)], "", *lines[2 + len(first) :]])
    return "\n\n".join([main, *_further(comparison, text_table), *_remarks(comparison)])


def markdown(comparison: "Comparison") -> str:
    """Return all tables as Markdown."""
    first, rest = rows(comparison)
    header = _header(comparison)
    tables = [markdown_table(header, first), markdown_table(["the rest", *header[1:]], rest)]
    return "\n\n".join([*tables, *_further(comparison, markdown_table), *_remarks(comparison)])


def rows(comparison: "Comparison") -> tuple[list[Row], list[Row]]:
    """Return the rows that matter most, and the others: a name, then a cell for each policy and for human text."""
    columns = [*comparison.policies.values(), *([] if comparison.human is None else [comparison.human])]
    first = next(iter(comparison.policies))
    judges = list(next(iter(comparison.policies.values())).judges)
    judged = {(judge, key): _judged_row(columns, judge, key, first) for key in OF_JUDGES for judge in judges}
    plain = {key: [title, *(_shown(getattr(each, key)) for each in columns)] for key, title in OF_TEXTS.items()}
    everything = _known([*judged.values(), *plain.values()])
    win_rates = _known([judged[judge, "win_rate"] for judge in judges])[:FIRST_JUDGES]
    wanted = [*win_rates, *_known([plain[key] for key in _MATTER]), *everything]
    chosen = list({str(row[0]): row for row in wanted}.values())
    matter = [row for place, row in enumerate(chosen) if place < NUM_FIRST]
    names = {row[0] for row in matter}
    return matter, [row for row in everything if row[0] not in names]


def _judged_row(columns: Sequence[PolicySummary], judge: str, key: str, first: str) -> Row:
    title = OF_JUDGES[key].format(first=first, judge=judge_title(judge))
    said = [each.judges.get(judge) for each in columns]
    return [title, *(_shown(None if each is None else getattr(each, key)) for each in said)]


def _further(comparison: "Comparison", table: Table) -> list[str]:
    """Return the matrix of win rates and the ranking where there are more than two policies, and the judges' audit."""
    tables = []
    if len(comparison.policies) > 2:
        tables = [_matrix(judge, comparison, table) for judge in comparison.win_rates]
    if comparison.audits:
        tables.append(_audit(comparison, table))
    return tables


def _matrix(judge: str, comparison: "Comparison", table: Table) -> str:
    names = list(comparison.policies)
    rates, ranking = comparison.win_rates[judge], comparison.rankings.get(judge, {})
    header = [f"row wins against column, {judge_title(judge)}", *names, "log strength (Bradley-Terry)"]
    order = sorted(names, key=lambda name: -ranking[name].mean if name in ranking else 0.0)
    body = [[name, *(_shown(rates[name].get(other)) for other in names), _shown(ranking.get(name))] for name in order]
    return table(header, body)


def _audit(comparison: "Comparison", table: Table) -> str:
    judges = list(comparison.audits)
    body: list[Row] = [
        [title, *(_shown(getattr(each, key)) for each in comparison.audits.values())] for key, title in _AUDIT.items()
    ]
    body += [
        [f"agrees with the {judge_title(other)}", *(each.agreement.get(other) for each in comparison.audits.values())]
        for other in judges
    ]
    return table(["audit of the judges", *map(judge_title, judges)], _known(body))


def _remarks(comparison: "Comparison") -> list[str]:
    remarks = list(comparison.notes)
    if comparison.smallest_effect is not None and len(comparison.policies) > 1:
        effect = comparison.smallest_effect
        remarks.append(
            f"{comparison.num_prompts} prompts find a win rate that differs by {effect:.1%} from 50% four times in "
            "five (two-sided test at 5%); smaller differences need more prompts"
        )
    return ["\n".join(f"- {remark}" for remark in remarks)] if remarks else []


def _header(comparison: "Comparison") -> list[str]:
    each = comparison.samples_per_prompt
    number = f"on {comparison.num_prompts} prompts" + (f", {each} answers each" if each > 1 else "")
    return [number, *comparison.policies, *([] if comparison.human is None else [HUMAN])]


def _known(given: Iterable[Row]) -> list[Row]:
    return [row for row in given if any(cell is not None for cell in row[1:])]


def _shown(value: Interval | float | None) -> Cell:
    if isinstance(value, Interval):
        return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"
    return value
