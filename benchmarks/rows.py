"""The rows of a result: what a row holds, how to save it as JSON, and how to print it as a table.

`python benchmarks/rows.py results/*.json` prints the tables of saved results as Markdown.
"""

import datetime
import json
import platform
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

import torch

from options import Parser, finish, one_line_errors
from rlhf.training.telemetry.machine import processor_name
from sides import Figures
from tables import markdown_table

Row = dict[str, Any]
COLUMNS = ("comparison", "theirs", "ours", "ratio", "of pairs", "goal", "peak memory", "of the limit")


def comparison(benchmark: str, name: str, theirs: Figures, ours: Figures, **more: Any) -> Row:
    """Return the row of two sides: `ratio` is the median time of the other side divided by ours.

    If a side has no figures, the ratio is None. `left_out` says why, and also why pairs are missing.
    """
    row: Row = {"benchmark": benchmark, "name": name, **more, "ratio": None, **circumstances()}
    for side, figures in (("theirs", theirs), ("ours", ours)):
        if figures.seconds:
            row[side] = figures.summary()
        if figures.problem is not None:
            row["left_out"] = f"{side}: {figures.problem}"
    if theirs.seconds and ours.seconds:
        row["ratio"] = row["theirs"]["seconds"] / row["ours"]["seconds"]
        row["ratios"] = [
            median(a["seconds"][1:]) / median(b["seconds"][1:]) for a, b in zip(theirs.runs, ours.runs, strict=False)
        ]
        row["memory_ratio"] = row["ours"]["peak_gb"] / row["theirs"]["peak_gb"]
    return row


def completed(row: Row, work: Row, least: float | None, goal: tuple[float, float] | None) -> Row:
    """Return a row with its work, the least seconds that it needs, what share of our time they are, and the goal.

    Args:
        row: of a comparison.
        work: sizes; our compute type is added if our side reported it.
        least: seconds that the machine needs at least; None if unknown.
        goal: minimum and aim; None if none applies.
    """
    ours = row.get("ours", {})
    found = {**row, "work": {**work, **({"ours_computes_in": ours["compute"]} if "compute" in ours else {})}}
    if least is not None:
        found |= {"least_seconds": least, **({"share_of_limit": least / ours["seconds"]} if ours else {})}
    if goal is not None:
        found["goal"] = dict(zip(("at_least", "aim"), goal, strict=True))
    return found


def circumstances() -> Row:
    """Return machine and date."""
    return {
        "machine": f"{processor_name()}, {torch.get_num_threads()} threads, {platform.system()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def save(rows: Sequence[Row], path: Path | None) -> None:
    """Write the rows so far as a JSON list; without a path write nothing."""
    if path is not None:
        path.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")


def collect(found: Iterable[Row], made: Parser, path: Path | None) -> NoReturn:
    """Save each row as soon as it is ready, print the table of all, and exit with the status of `finish`.

    Args:
        found: measures as it yields; its errors become one line.
        made: the parser of the command, which names the program in that line.
        path: of the JSON; None writes none.
    """
    rows: list[Row] = []
    with one_line_errors(made):
        for row in found:
            rows.append(row)
            save(rows, path)
    print(markdown(rows))
    finish(sum(row["ratio"] is not None for row in rows))


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, with the phases of the sides below it."""
    phases = [f"- {row['name']}: {_phases(row)}" for row in rows if _phases(row)]
    return "\n".join([markdown_table(COLUMNS, map(_cells, rows)), "", *phases])


def _cells(row: Row) -> list[str]:
    if row["ratio"] is None:
        return [row["name"], f"left out: {row.get('left_out', 'no figures')}", *[""] * (len(COLUMNS) - 2)]
    ratios, goal, share = row.get("ratios", []), row.get("goal"), row.get("share_of_limit")
    return [
        row["name"],
        _side(row, "theirs"),
        _side(row, "ours"),
        f"{row['ratio']:.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "",
        f"{goal['at_least']} / {goal['aim']}" if goal else "",
        f"{row['memory_ratio']:.2f}x" if "memory_ratio" in row else "",
        f"{share:.0%}" if share is not None else "",
    ]


def _side(row: Row, side: str) -> str:
    figures = row.get(side)
    if figures is None:
        return ""
    shown = f"{figures['seconds']:.3g} s"
    if "tokens_per_second" in figures:
        shown += f", {figures['tokens_per_second']:.0f} tokens/s"
    if "peak_gb" in figures:
        shown += f", {figures['peak_gb']:.1f} GB"
    return shown


def _phases(row: Row) -> str:
    shown = []
    for side in ("theirs", "ours"):
        phases = row.get(side, {}).get("phases", {})
        if phases:
            shown.append(f"{side} " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in phases.items()))
    return "; ".join(shown)


def main(paths: Sequence[str]) -> None:
    """Print the tables of saved results."""
    for path in paths:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        first = rows[0]
        print(f"### {first['benchmark']} ({first['machine']}, {first['date']})\n\n{markdown(rows)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
