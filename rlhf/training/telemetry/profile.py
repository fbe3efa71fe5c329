"""The profile of a stage: where its time goes, how fast it is, and what share of the machine it uses."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from rlhf.disk import write_atomic
from rlhf.errors import CheckpointError
from rlhf.training.processes import Processes
from rlhf.training.telemetry.machine import matrix_rate
from rlhf.training.telemetry.memory import device_peak_memory_bytes, peak_memory_bytes
from rlhf.training.telemetry.phases import NO_PHASES, OTHER, Phases

ORDER = ("generation", "reward", "reference", "forward", "backward", "optimizer", "evaluation", "checkpoint")
"""The order in which a table lists phases; others follow."""
BESIDE_STEPS = ("evaluation", "checkpoint")
"""Phases between steps, which do not count for throughput and utilisation."""
GIB = 2**30


class Profile:
    """Collects time by phase, tokens and operations; reports them row by row, and in total at the end.

    Seconds are those of this process, tokens and operations those of all. Utilisations are shares of a rate that is
    measured on all processes at once and added up.
    """

    def __init__(self, processes: Processes | None) -> None:
        """Measure nothing yet; without processes, never measure anything."""
        self.enabled = processes is not None
        self.phases = NO_PHASES if processes is None else Phases(processes.device)
        self._processes = processes
        self._rate = 0.0
        self._rate_of = ""
        self._row = _Sums()
        self._whole = _Sums()

    def measure_machine(self, matrix: tuple[int, int], num_rows: int, dtype: torch.dtype) -> None:
        """Measure how fast this machine multiplies `num_rows` tokens with a matrix of that shape [O, I]."""
        if self._processes is None:
            return
        self._processes.wait()  # all at once, as in training
        (self._rate,) = self._processes.sums([matrix_rate(matrix, num_rows, dtype, self._processes.device)])
        self._rate_of = f"{str(dtype).removeprefix('torch.')} products of up to {num_rows} tokens and {list(matrix)}"

    def start(self) -> None:
        """Start the clock of the first row."""
        if self.enabled:
            self.phases.taken()

    def add(self, tokens: int, flops: Mapping[str, float]) -> None:
        """Add the work of a step on this process: its real tokens, and operations by phase."""
        self._row.add({}, tokens, flops)

    def row(self) -> dict[str, float]:
        """Return the metrics since the last row: `time/PHASE` in seconds, `profile/...`; call it on every process."""
        if self._processes is None:
            return {}
        part = _Sums()
        part.add(self.phases.taken(), 0.0, {})
        for tokens, flops in self._processes.gathered([(self._row.tokens, self._row.flops)]):
            part.add({}, tokens, flops)
        self._row = _Sums()
        self._whole.add(part.seconds, part.tokens, part.flops)
        times = {f"time/{name}": value for name, value in part.seconds.items()}
        return times | {f"profile/{name}": value for name, value in self._figures(part, self._processes).items()}

    def finish(self, path: Path, title: str) -> None:
        """Print the table of all rows, and write it as JSON; call it on every process.

        Raises:
            CheckpointError: the disk is full or cannot be written.
        """
        if self._processes is None or not self._whole.seconds:
            return
        figures = self._figures(self._whole, self._processes)
        if not self._processes.is_main:
            return
        self._processes.say("\n".join([f"{title}: profile of {self._whole.total:.1f} s", *self._table(figures)]))
        content = {"matrix_products": self._rate_of, "matrix_flops_per_second": self._rate, **figures}
        content |= {"tokens": self._whole.tokens, "phases": {name: self._phase(name) for name in self._names()}}
        try:
            write_atomic(path, json.dumps(content, indent=2) + "\n")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written: {error}") from error

    def _figures(self, sums: "_Sums", processes: Processes) -> dict[str, float]:
        in_steps = sums.total - sum(sums.seconds.get(name, 0.0) for name in BESIDE_STEPS)
        flops = sum(sums.flops.values())
        peaks = {"peak_memory_gib": peak_memory_bytes() / GIB}
        on_device = device_peak_memory_bytes(processes.device)
        if on_device is not None:
            peaks["device_peak_memory_gib"] = on_device / GIB
        return {
            "seconds": sums.total,
            "tokens_per_second": _ratio(sums.tokens, in_steps),
            "flops_per_second": _ratio(flops, in_steps),
            "flop_utilisation": _ratio(flops, in_steps * self._rate),
            "other_share": _ratio(sums.seconds[OTHER], sums.total),
            **{name: max(processes.gathered([peak])) for name, peak in peaks.items()},
        }

    def _names(self) -> list[str]:
        seconds = self._whole.seconds
        known = [name for name in ORDER if name in seconds]
        return [*known, *sorted(seconds.keys() - {*known, OTHER}), OTHER]

    def _phase(self, name: str) -> dict[str, float]:
        seconds, flops = self._whole.seconds[name], self._whole.flops.get(name, 0.0)
        share, utilisation = _ratio(seconds, self._whole.total), _ratio(flops, seconds * self._rate)
        return {"seconds": seconds, "share": share, "flops": flops, "flop_utilisation": utilisation}

    def _table(self, figures: Mapping[str, float]) -> list[str]:
        lines = [f"  {'phase':<12}{'seconds':>10}{'share':>9}{'utilisation':>14}"]
        for name in self._names():
            phase = self._phase(name)
            used = f"{phase['flop_utilisation']:>14.1%}" if phase["flops"] else ""
            lines.append(f"  {name:<12}{phase['seconds']:>10.2f}{phase['share']:>9.1%}{used}")
        memory = f"peak memory {figures['peak_memory_gib']:.2f} GiB"
        if "device_peak_memory_gib" in figures:
            memory += f", {figures['device_peak_memory_gib']:.2f} GiB on the device"
        rate = f"{self._rate / 1e9:,.0f} GFLOP/s, measured with {self._rate_of}"
        return [
            *lines,
            f"  {figures['tokens_per_second']:,.0f} tokens/s, {memory}",
            f"  {figures['flop_utilisation']:.1%} of {rate}",
        ]


class _Sums:
    """Seconds and operations by phase, and tokens."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.flops: dict[str, float] = {}
        self.tokens = 0.0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def add(self, seconds: Mapping[str, float], tokens: float, flops: Mapping[str, float]) -> None:
        self.tokens += tokens
        for sums, parts in ((self.seconds, seconds), (self.flops, flops)):
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


NO_PROFILE = Profile(None)
"""For callers that measure nothing."""
