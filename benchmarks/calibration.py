"""Does the cost model of `rlhf plan` predict a size that it has not seen? Fitted on two sizes, it predicts a third.

    python benchmarks/calibration.py            # 5M, 20M, 60M and 135M weights: a few minutes on 2 quiet cores
    python benchmarks/calibration.py --quick    # tiny models, to see that it runs: its errors mean nothing

Each size trains for a few profiled PPO steps in a process of its own (`rlhf ppo --profile`). Then each is predicted
from the fit to two others. The table shows what a step took, what was predicted, and by how much that is wrong. A
size brings one measurement of its own: the rate of products with its largest matrix, which needs no run.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

import small_runs
from rlhf.config import PPOConfig, RunConfig
from rlhf.forecast.models import ppo_models
from rlhf.plan.calibration import Measured, fitted, machine
from rlhf.plan.outcome import Counted, Lengths, counted
from rlhf.plan.setups import Setup
from rlhf.plan.times import Times, Work
from small_runs import Run

FULL, QUICK = ("5M", "20M", "60M", "135M"), ("tiny", "small", "5M")
HELD_OUT = {
    "20M": ("5M", "60M"),
    "60M": ("20M", "135M"),
    "135M": ("20M", "60M"),
    "small": ("tiny", "5M"),
    "5M": ("tiny", "small"),
}
"""Each predicted size, and the two it is predicted from: between them, or beyond both."""
PARTS = ("generation", "scoring", "training", "total")
GOAL = 0.25
"""Largest error of a step's time that the plan allows itself."""
COPIED = 2**28
"""Bytes that are copied to measure the memory's bandwidth."""


def runs(quick: bool) -> dict[str, Run]:
    """Return the run of each size."""
    if quick:
        return {size: Run(size=size, response=8, batch=8, steps=3) for size in QUICK}
    return {size: Run(size=size, response=48, batch=16, steps=4 if size == "135M" else 6) for size in FULL}


def counted_run(run: Run, place: Path) -> Counted:
    """Count a step of a run by the code of `rlhf plan`."""
    config = PPOConfig.model_validate(run.config(place))
    models = ppo_models(config, RunConfig(output_dir=str(place)))
    setup = Setup(tuning="", is_sharded=False, has_engine=False)
    lengths = Lengths(prompt=small_runs.prompt_tokens(), response=run.response)
    return counted(config, models, setup, lengths, run.processes)


def bandwidth() -> float:
    """Return the bytes a second that a copy in memory reads and writes."""
    source = torch.zeros(COPIED, dtype=torch.uint8)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - started)
    return 2 * COPIED / best


def predicted(size: str, counts: dict[str, Work], found: dict[str, Measured], memory_rate: float) -> Times:
    """Return the times of a size, by the fit to two others."""
    pairs = [(counts[other], found[other]) for other in HELD_OUT[size]]
    device = machine(found[size], fitted(pairs, memory_rate), memory=0.0, bandwidth=memory_rate)
    return counts[size].times(device)


def table(counts: dict[str, Work], found: dict[str, Measured], memory_rate: float) -> tuple[str, float]:
    """Return the table in Markdown, and the largest error of a whole step."""
    lines = ["| size | fitted on | part | measured s | predicted s | error |", "|---|---|---|---|---|---|"]
    worst = 0.0
    for size in [name for name in HELD_OUT if name in counts and set(HELD_OUT[name]) <= set(counts)]:
        said = predicted(size, counts, found, memory_rate)
        for part in PARTS:
            real, guess = getattr(found[size].times, part), getattr(said, part)
            error = guess / real - 1
            lines.append(
                f"| {size} | {' and '.join(HELD_OUT[size])} | {part} | {real:.2f} | {guess:.2f} | {error:+.0%} |"
            )
        worst = max(worst, abs(error))
    return "\n".join(lines), worst


def main() -> None:
    """Run every size, and print the table; status 1 where a step is wrong by more than the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny models, to see that it runs")
    options = parser.parse_args()
    chosen = runs(options.quick)
    found: dict[str, Measured] = {}
    counts: dict[str, Work] = {}
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        small_runs.prepare(place, set(chosen))
        for size, run in chosen.items():
            found[size], counts[size] = Measured.of(small_runs.do(run, place)), counted_run(run, place).work
            print(f"{size}: {found[size].times.total:.2f} s a step", file=sys.stderr, flush=True)
    text, worst = table(counts, found, bandwidth())
    print(text)
    print(f"\nLargest error of a step: {worst:.0%}" + ("" if options.quick else f"; the goal is {GOAL:.0%}"))
    sys.exit(0 if options.quick or worst <= GOAL else 1)


if __name__ == "__main__":
    main()
