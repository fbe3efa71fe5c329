"""The cost model fitted to measured runs: from the phases of `--profile` to shares of a machine's rates."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlhf.errors import ConfigError
from rlhf.plan.hardware import Device, Efficiency
from rlhf.plan.times import Times, Work

WARM_UP = 1
"""First steps that do not count: kernels are compiled and memory is taken in them."""
PHASES = ("generation", "reward", "reference", "forward", "backward", "optimizer")
LEAST = 1e-3
"""Smallest share that a fit returns, of a rate: a phase that took next to no time tells nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A profiled PPO run of one model on this machine."""

    seconds: dict[str, float]
    """Of a step by phase of `--profile`: the median over the steps after the first."""
    rate: float
    """Operations a second of matrix products of this model's width."""

    @classmethod
    def of(cls, run: Path) -> "Measured":
        """Read the output directory of `rlhf ppo --profile`.

        Raises:
            ConfigError: no complete profiled run of two steps or more is there.
        """
        try:
            rate = json.loads((run / "profile.json").read_text(encoding="utf-8"))["matrix_flops_per_second"]
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            steps = [row for row in rows if "time/forward" in row][WARM_UP:]
            seconds = {name: statistics.median(row.get(f"time/{name}", 0.0) for row in steps) for name in PHASES}
        except (OSError, KeyError, ValueError) as problem:
            raise ConfigError(
                f"{run}: expected the output of `rlhf ppo --profile` over two steps or more, found {problem!r}"
            ) from None
        return cls(seconds=seconds, rate=rate)

    @property
    def times(self) -> Times:
        """The seconds of a step in the phases of a plan."""
        taken = self.seconds
        return Times(
            generation=taken["generation"],
            scoring=taken["reward"] + taken["reference"],
            training=taken["forward"] + taken["backward"] + taken["optimizer"],
            communication=0.0,
        )


def fitted(runs: Sequence[tuple[Work, Measured]], bandwidth: float) -> Efficiency:
    """Return the shares and waits with which the cost model comes nearest to measured runs, in relative terms.

    Args:
        runs: what a step was counted to be, and what it took; of two sizes or more, so that both what grows with the
            operations and what each block waits for can be told apart.
        bandwidth: bytes a second of this machine's memory.
    """
    passes = [
        (work.passes / run.rate, work.pass_blocks, run.seconds["forward"] + run.seconds["backward"])
        for work, run in runs
    ]
    training, pass_launch = _two(passes)
    scored = [(work.scoring / run.rate, run.times.scoring - pass_launch * work.scoring_blocks) for work, run in runs]
    inference = _share(scored)
    decoded = [
        (
            work.decode_steps * work.decode_flops / run.rate,
            work.decode_steps * work.decode_blocks,
            run.times.generation - work.reading / (inference * run.rate),
        )
        for work, run in runs
    ]
    decoding, launch = _two(decoded)
    updates = [(work.update_bytes / bandwidth, run.seconds["optimizer"]) for work, run in runs]
    return Efficiency(
        training=training,
        inference=inference,
        decoding=decoding,
        reading=1.0,
        updating=_share(updates),
        launch=launch,
        pass_launch=pass_launch,
    )


def machine(run: Measured, efficiency: Efficiency, *, memory: float, bandwidth: float) -> Device:
    """Return this machine as a device, for a model whose products run at the rate of `run`."""
    return Device(memory=memory, flops=run.rate, bandwidth=bandwidth, link=bandwidth, efficiency=efficiency)


def _two(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Fit seconds = ideal / share + blocks x wait, neither below 0; return share and wait in seconds."""
    ideal, blocks, seconds = np.array(rows, dtype=float).T
    table = np.stack([ideal / seconds, blocks / seconds], axis=1)
    factor, wait = np.linalg.lstsq(table, np.ones(len(rows)), rcond=None)[0]
    if wait < 0 or len(rows) < 2:
        return _share(list(zip(ideal, seconds, strict=True))), 0.0
    if factor <= 0:  # all of it is waiting: as fast as can be told
        return 1 / LEAST, float(1 / np.mean(blocks / seconds))
    return float(1 / factor), float(wait)


def _share(rows: Sequence[tuple[float, float]]) -> float:
    """Fit seconds = ideal / share; return the share."""
    shares = [ideal / seconds for ideal, seconds in rows if seconds > 0]
    return max(LEAST, statistics.geometric_mean(shares) if shares and min(shares) > 0 else 1.0)
