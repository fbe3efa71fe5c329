"""Learning curves of several runs side by side: `learning_curves.py float32=a,b,c bfloat16=d,e,f`.

Each name stands for the runs of one setting, a run directory of `rlhf ppo` a seed. Prints, over spans of steps, score
and KL with Student's 95 % interval over seeds, and says whether each setting's mean lies within the interval of the
other. Only steps that all runs have are read.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

KEYS = ("objective/scores", "objective/kl")
Curves = NDArray[np.float64]
"""[seeds, steps]"""


def read(runs: Sequence[Path], key: str) -> Curves:
    """Return a metric of each run, up to the last step that all of them have."""
    lines = [(run / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for run in runs]
    curves = [[json.loads(line)[key] for line in run] for run in lines]
    shortest = min(len(curve) for curve in curves)
    return np.array([curve[:shortest] for curve in curves])


def interval(curves: Curves, span: slice) -> tuple[float, float]:
    """Return the mean over a span of steps, and half of its 95 % interval over seeds."""
    means = curves[:, span].mean(axis=1)
    half = student.ppf(0.975, len(means) - 1) * means.std(ddof=1) / len(means) ** 0.5
    return float(means.mean()), float(half)


def table(settings: dict[str, list[Path]], width: int) -> str:
    """Return a Markdown table, a line for each metric and span of `width` steps."""
    names = list(settings)
    lines = [f"| metric | steps | {' | '.join(names)} | within |", f"|{' --- |' * (len(names) + 3)}"]
    for key in KEYS:
        curves = {name: read(runs, key) for name, runs in settings.items()}
        steps = min(found.shape[1] for found in curves.values())
        for first in range(0, steps, width):
            span = slice(first, min(first + width, steps))
            found = [interval(curves[name], span) for name in names]
            within = all(abs(one[0] - other[0]) <= min(one[1], other[1]) for one in found for other in found)
            cells = [f"{mean:.2f} +- {half:.2f}" for mean, half in found]
            lines.append(
                f"| {key} | {span.start + 1} to {span.stop} | {' | '.join(cells)} | {'yes' if within else 'no'} |"
            )
    return "\n".join(lines)


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
    made.add_argument("--width", type=int, default=4, help="steps that are taken together")
    options = made.parse_args()
    print(table(dict(options.settings), options.width))


if __name__ == "__main__":
    main()
