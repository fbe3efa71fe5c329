"""One side of a comparison as its own process, and several of them in turn: A B A B."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from environments import LeftOut, python_of, variables_of

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Side:
    """The work of one process."""

    name: str
    worker: str
    """File, relative to this folder."""
    work: dict[str, Any]
    """What the worker reads."""
    pins: str | None = None
    """The environment that runs it; None: the current one."""
    variables: dict[str, str] = field(default_factory=dict)
    """Its own environment variables."""


@dataclass
class Figures:
    """The reports of one side's processes."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None
    """Why there are no (more) figures."""

    @property
    def seconds(self) -> list[float]:
        """Every timed round, without the warm-up of each process."""
        return [seconds for run in self.runs for seconds in run["seconds"][1:]]

    def summary(self) -> dict[str, Any]:
        """Return the medians of the timed rounds and of their phases, the largest peak memory, and the versions.

        `compute`, if the worker reports it, is the compute type of all processes.

        Raises:
            ValueError: they computed in different types.
        """
        computes = sorted({run["compute"] for run in self.runs if "compute" in run})
        if len(computes) > 1:
            raise ValueError(f"one side computed in {' and in '.join(computes)} in turn; name the type with --dtype")
        rounds = [phases for run in self.runs for phases in run["phases"][1:]]
        names = sorted({name for phases in rounds for name in phases})
        return {
            "seconds": median(self.seconds),
            "all_seconds": self.seconds,
            "phases": {name: median(phases.get(name, 0.0) for phases in rounds) for name in names},
            "peak_gb": max(run["peak_bytes"] for run in self.runs) / 1e9,
            "versions": self.runs[0]["versions"],
            **({"compute": computes[0]} if computes else {}),
        }


def in_turn(sides: Sequence[Side], rounds: int, timeout: float) -> dict[str, Figures]:
    """Run all sides one after the other, `rounds` times; skip a side once it has failed.

    Args:
        sides: with different names.
        rounds: how often each side runs.
        timeout: time limit of one process in seconds.
    """
    found = {side.name: Figures() for side in sides}
    for turn in range(rounds):
        for side in sides:
            figures = found[side.name]
            if figures.problem is not None:
                continue
            try:
                figures.runs.append(run(side, timeout))
            except LeftOut as problem:
                figures.problem = str(problem)
                _say(f"{side.name}: left out: {problem}")
            else:
                times = ", ".join(f"{seconds:.2f}" for seconds in figures.runs[-1]["seconds"][1:])
                _say(f"{turn + 1}/{rounds} {side.name}: {times} s")
    return found


def run(side: Side, timeout: float) -> dict[str, Any]:
    """Run a side once and return what it reports.

    Raises:
        LeftOut: no environment, a failure or a timeout; the last line of its output is in the message.
    """
    python = Path(sys.executable) if side.pins is None else python_of(side.pins)
    variables = {**variables_of(side.pins), **side.variables}
    # Workers import the stopwatch from this folder.
    variables["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [variables.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory() as directory:
        work, result = Path(directory) / "work.json", Path(directory) / "result.json"
        work.write_text(json.dumps(side.work), encoding="utf-8")
        command = [str(python), str(HERE / side.worker), str(work), str(result)]
        try:
            done = subprocess.run(  # noqa: S603 - no shell, and the arguments are our own
                command, env=variables, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise LeftOut(f"no result within {timeout:.0f} s") from None
        if done.returncode or not result.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise LeftOut(f"status {done.returncode}: {lines[-1][:300]}")
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
