"""Tables of `resets.py`: `python benchmarks/reset_tables.py results/resets/*.json`, as Markdown.

Differences are to fraction 0 of the same seed. Intervals are Student's, 95 %, over seeds.
"""

import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tables import markdown_table, mean_and_half

HEADER = ("fraction", "score", "of seeds", "KL", "decode tokens", "at the end", "at equal KL", "at equal decode tokens")
Row = dict[str, Any]
Curve = list[Row]
"""The measurements of one run, in the order of the steps."""
Runs = dict[int, dict[float, Curve]]
"""By seed and fraction."""


def runs_of(rows: Sequence[Row]) -> dict[str, Runs]:
    """Return the runs of each task."""
    tasks: dict[str, Runs] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in sorted(rows, key=lambda row: int(row["step"])):
        tasks[row["task"]][row["seed"]][row["fraction"]].append(row)
    return tasks


def at_equal(curves: dict[float, Curve], key: str) -> dict[float, float]:
    """Return the scores of all fractions at the largest `key` that each of them has reached.

    Scores between two measurements are interpolated linearly.
    """
    common = min(max(row[key] for row in curve) for curve in curves.values())
    return {fraction: _score_at(curve, key, common) for fraction, curve in curves.items()}


def interval(values: Sequence[float]) -> str:
    """Return mean and Student's 95 % interval of the mean."""
    if len(values) < 2:
        return f"{np.mean(values):.2f}"
    mean, half = mean_and_half(values)
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def table(runs: Runs) -> str:
    """Return one line per fraction, over the seeds that have it: the end of the run, and differences to fraction 0."""
    rows = []
    ends = {seed: {part: curve[-1]["score"] for part, curve in curves.items()} for seed, curves in runs.items()}
    by_kl = {seed: at_equal(curves, "kl") for seed, curves in runs.items()}
    by_tokens = {seed: at_equal(curves, "decode_tokens") for seed, curves in runs.items()}
    for fraction in sorted({fraction for curves in runs.values() for fraction in curves}):
        scores = [end[fraction] for end in ends.values() if fraction in end]
        last = [curves[fraction][-1] for curves in runs.values() if fraction in curves]
        row = [
            f"{fraction:g}",
            interval(scores),
            ", ".join(f"{score:.2f}" for score in scores),
            f"{np.mean([row['kl'] for row in last]):.1f}",
            f"{np.mean([row['decode_tokens'] for row in last]):,.0f}",
            *(_gain(found, fraction) for found in (ends, by_kl, by_tokens)),
        ]
        rows.append(row)
    return markdown_table(HEADER, rows)


def _score_at(curve: Curve, key: str, place: float) -> float:
    """Return the score where `key` first passes `place`."""
    for before, after in itertools.pairwise(curve):
        if before[key] <= place <= after[key]:
            share = (place - before[key]) / (after[key] - before[key]) if after[key] > before[key] else 1.0
            return float(before["score"] + share * (after["score"] - before["score"]))
    return float(curve[-1]["score"])


def _gain(found: dict[int, dict[float, float]], fraction: float) -> str:
    if fraction == 0:
        return "0"
    return interval([scores[fraction] - scores[0.0] for scores in found.values() if fraction in scores])


def main(paths: Sequence[str], show: Callable[[str], None] = print) -> None:
    """Print a table for each task."""
    rows = [row for path in paths for row in json.loads(Path(path).read_text(encoding="utf-8"))]
    for task, runs in runs_of(rows).items():
        starts = ", ".join(f"{curves[0.0][0]['score']:.2f}" for curves in runs.values())
        show(f"### {task}: {len(runs)} seeds; held-out score before PPO {starts}\n\n{table(runs)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
