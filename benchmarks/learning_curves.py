"""Learning curves of several runs side by side: `learning_curves.py float32=a,b,c bfloat16=d,e,f`.

Each name stands for the runs of one setting: one run directory of `rlhf ppo` per seed, seeds in the same order. For
each span of steps it prints score and KL with Student's 95 % interval over seeds, whether each mean is within the
other's interval, and the difference within seeds with its interval. It reads only the steps that all runs have.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tables import markdown_table, mean_and_half

KEYS = ("objective/scores", "objective/kl")
Curves = NDArray[np.float64]
"""[seeds, steps]"""


def read(runs: Sequence[Path], key: str) -> Curves:
    """Return a metric of each run, up to the last step that all of them have."""
    lines = [(run / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for run in runs]
    curves = [[json.loads(line)[key] for line in run] for run in lines]
    shortest = min(len(curve) for curve in curves)
    return np.array([curve[:shortest] for curve in curves])


def interval(curves: Curves) -> tuple[float, float]:
    """Return the mean over steps and seeds, and half of its 95 % interval over seeds."""
    return mean_and_half(curves.mean(axis=1))


def table(settings: dict[str, list[Path]], width: int) -> str:
    """Return a Markdown table of two settings, a line for each metric and span of `width` steps."""
    one, other = settings
    header = ["metric", "steps", one, other, f"{one} in {other}", f"{other} in {one}", "difference"]
    rows = []
    for key in KEYS:
        first, second = read(settings[one], key), read(settings[other], key)
        steps = min(first.shape[1], second.shape[1])
        for start in range(0, steps, width):
            span = slice(start, min(start + width, steps))
            (mean, half), (other_mean, other_half) = interval(first[:, span]), interval(second[:, span])
            apart = abs(mean - other_mean)
            difference = interval(first[:, span] - second[:, span])
            row = [
                key,
                f"{span.start + 1} to {span.stop}",
                f"{mean:.2f} +- {half:.2f}",
                f"{other_mean:.2f} +- {other_half:.2f}",
                "yes" if apart <= other_half else "no",
                "yes" if apart <= half else "no",
                f"{difference[0]:+.2f} +- {difference[1]:.2f}",
            ]
            rows.append(row)
    return markdown_table(header, rows)


def _setting(text: str) -> tuple[str, list[Path]]:
    name, _, runs = text.partition("=")
    paths = [Path(run) for run in runs.split(",") if run]
    missing = [str(path) for path in paths if not (path / "metrics.jsonl").is_file()]
    if len(paths) < 2 or missing:
        raise argparse.ArgumentTypeError(
            f"expected NAME=RUN,RUN,... with the metrics.jsonl of at least 2 runs, found {text!r}"
            + (f"; none in {', '.join(missing)}" if missing else "")
        )
    return name, paths


def main() -> None:
    """Print the table."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("settings", nargs="+", type=_setting, metavar="NAME=RUN,RUN", help="runs of one setting")
    made.add_argument("--width", type=int, default=4, help="steps per span")
    options = made.parse_args()
    if len(options.settings) != 2 or len({len(runs) for _, runs in options.settings}) != 1:
        made.error("expected two settings with equally many runs")
    print(table(dict(options.settings), options.width))


if __name__ == "__main__":
    main()
