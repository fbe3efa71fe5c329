"""How the time and memory of a PPO step grow: with response length, batch, model size and processes, beside theory.

    python benchmarks/growth.py            # about 8 minutes on 2 quiet cores
    python benchmarks/growth.py --quick    # tiny models and few points, to see that it runs

Each point is a profiled PPO run in processes of its own. A slope is the exponent between a point and the one before it:
1 is proportional, 0 constant, 2 quadratic. Theory counts operations, by the code of `rlhf plan`. Memory is that of the
process that takes most, libraries included: microbatches and `batch_rows` bound it, so a batch adds next to nothing.
"""

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import small_runs
from calibration import counted_run
from small_runs import Run

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one run took."""

    seconds: float
    """An episode, over all processes."""
    peak: float
    """Bytes of the process that takes most, libraries included."""
    flops: float
    """Operations an episode, over all processes."""
    weights: int
    """Of the model."""


def axes(quick: bool) -> dict[str, list[Run]]:
    """Return the runs along each axis."""
    small, lengths, batches = ("tiny", (8, 16), (8, 16)) if quick else ("5M", (32, 128, 512, 1024), (16, 64, 512))
    sizes, processes, shared = (("tiny", "small"), (1, 2), 16) if quick else (("5M", "20M", "135M"), (1, 2, 4), 64)
    return {
        "response length": [Run(size=small, response=each) for each in lengths],
        "batch": [Run(size=small, batch=each) for each in batches],
        "weights": [Run(size=each) for each in sizes],
        "processes": [Run(size=small, batch=shared, processes=each) for each in processes],
    }


def place_of(axis: str, run: Run, point: Point) -> float:
    """Return where a run stands on an axis."""
    return float(
        {"response length": run.response, "batch": run.batch, "processes": run.processes}.get(axis, point.weights)
    )


def measured(run: Run, place: Path) -> Point:
    """Do a run and read its point."""
    steps = small_runs.steps_of(small_runs.do(run, place))
    seconds = [sum(value for name, value in row.items() if name.startswith("time/")) for row in steps]
    found = counted_run(run, place)
    work = found.work
    flops = work.passes + work.scoring + work.reading + work.decode_steps * work.decode_flops
    return Point(
        seconds=statistics.median(seconds) / run.batch,
        peak=max(row["profile/peak_memory_gib"] for row in steps) * GIB,
        flops=flops * run.processes / run.batch,
        weights=found.held.trained[0].weights,
    )


def slope(before: float, after: float, start: float, end: float) -> float:
    """Return the exponent with which a quantity grows from one point of an axis to the next."""
    return math.log(after / before) / math.log(end / start)


def table(axis: str, points: Sequence[tuple[float, Point]]) -> str:
    """Return an axis as a table in Markdown: points, and the slopes from each to the next."""
    lines = [f"| {axis} | ms an episode | slope | theory | peak GiB | slope |", "|---|---|---|---|---|---|"]
    for number, (at, point) in enumerate(points):
        slopes = ["", "", ""]
        if number:
            start, last = points[number - 1]
            grown = slope(last.seconds, point.seconds, start, at), theory(axis, points[number - 1], (at, point))
            slopes = [f"{each:+.2f}" for each in (*grown, slope(last.peak, point.peak, start, at))]
        name = f"{at / 1e6:.1f}M" if axis == "weights" else f"{at:.0f}"
        cells = [name, f"{1e3 * point.seconds:.1f}", *slopes[:2], f"{point.peak / GIB:.2f}", slopes[2]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def theory(axis: str, last: tuple[float, Point], now: tuple[float, Point]) -> float:
    """Return the slope of the operations; processes share the cores, so the same number of these computes always."""
    return 0.0 if axis == "processes" else slope(last[1].flops, now[1].flops, last[0], now[0])


def main() -> None:
    """Measure every point once, and print a table an axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models and few points, to see that it runs")
    chosen, done = axes(parser.parse_args().quick), dict[Run, Point]()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        small_runs.prepare(place, {run.size for runs in chosen.values() for run in runs})
        for axis, runs in chosen.items():
            for run in runs:
                if run not in done:
                    done[run] = measured(run, place)
                    print(f"{run.name}: {1e3 * done[run].seconds:.1f} ms an episode", file=sys.stderr, flush=True)
            print(table(axis, [(place_of(axis, run, done[run]), done[run]) for run in runs]) + "\n", flush=True)


if __name__ == "__main__":
    main()
