"""The numbers of a run: one JSON line per step in metrics.jsonl."""

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat, TextIO

from rlhf.disk import fsync, write_atomic
from rlhf.errors import CheckpointError
from rlhf.training.storage.atomic import make_directory

NOT_FINITE = "not_finite"
"""Key of a row for the metrics that are null because they were NaN or infinite, with their values."""

MOST_STEPS = 1 << 53
"""Up to which a step is the same number as an integer and as a float."""
SHOWN = 8
"""Ranges of steps that a warning lists."""


class MetricsLog:
    """Appends rows `{"step": n, ...}` to a file; `write` hands each to the operating system before it returns."""

    def __init__(self, path: Path, *, enabled: bool = True) -> None:
        """Open the file, and remove a last line that a killed run left unfinished.

        Args:
            path: created if missing.
            enabled: False on all processes but one: then nothing is opened or written.
        """
        self.path = path
        self.enabled = enabled
        self.num_rows = 0
        self._steps: list[int] = []  # of the rows when the file was last read
        self._repeated: list[int] = []  # steps that had several rows
        self._file: TextIO | None = None
        if enabled:
            self._rewrite(last_step=None)

    def write(self, step: int, metrics: Mapping[str, SupportsFloat | str | None]) -> None:
        """Append one row.

        Args:
            step: the step that the numbers describe.
            metrics: numbers (also 0-dimensional tensors), truth values, strings. NaN and infinity become null, and
                the key `not_finite` names them.

        Raises:
            CheckpointError: the disk is full or cannot be written.
        """
        if not self.enabled:
            return
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        line = json.dumps(row_of(step, metrics), allow_nan=False) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error}") from error
        self.num_rows += 1

    def sync(self) -> None:
        """Wait until all rows are on the disk.

        Raises:
            CheckpointError: the disk is full or cannot be written.
        """
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error}") from error

    def problems(self, step: int, num_rows: int, every: int) -> list[str]:
        """Say what the file lacks, or had twice when it was opened.

        Args:
            step: up to which its rows were kept.
            num_rows: that it had at that step.
            every: steps between its rows.
        """
        if not self.enabled:
            return []
        told = [f"{self.path}: steps {_ranges(self._repeated)} had several rows; the last of each is kept"]
        lines = told if self._repeated else []
        if len(self._steps) != num_rows:
            missing = sorted({*range(every, step + 1, every)} - {*self._steps})
            named = f"; steps {_ranges(missing)} have none" if missing else ""
            lines.append(f"{self.path}: {len(self._steps)} rows up to step {step}, there were {num_rows}{named}")
        return lines

    def cut_back(self, step: int) -> None:
        """Drop the rows of later steps, which a resumed run will write again."""
        if self.enabled:
            self._rewrite(last_step=step)

    def close(self) -> None:
        """Wait until all rows are on the disk, and close the file.

        Raises:
            CheckpointError: the disk is full or cannot be written.
        """
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            with file:
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error}") from error

    def __enter__(self) -> Self:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def _rewrite(self, last_step: int | None) -> None:
        self.close()
        try:
            make_directory(self.path.parent)
            is_new = not self.path.exists()
            old = b"" if is_new else self.path.read_bytes()
            found = [(row["step"], line) for row, line in _parse(self.path, old)]
            rows = {step: line for step, line in found if last_step is None or step <= last_step}
            self._steps, self.num_rows = sorted(rows), len(rows)
            counts = Counter(step for step, _ in found)
            self._repeated = sorted({*self._repeated, *(step for step, count in counts.items() if count > 1)})
            new = "".join(rows[step] + "\n" for step in self._steps)
            if new.encode() != old:
                write_atomic(self.path, new)
            self._file = self.path.open("a", encoding="utf-8")
            if is_new:
                fsync(self.path.parent)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error}") from error


def saved_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a finished run's file as `train` returned them."""
    rows = [row for row, _ in _parse(path, path.read_bytes())] if path.is_file() else []
    infinite = [{name: float(value) for name, value in row.pop(NOT_FINITE, {}).items()} for row in rows]
    return [{**row, **more, "step": float(row["step"])} for row, more in zip(rows, infinite, strict=True)]


def row_of(step: int, metrics: Mapping[str, SupportsFloat | str | None]) -> dict[str, Any]:
    """Return a row as it is written: numbers of Python, null for those that are not finite, which it names."""
    if reserved := {"step", NOT_FINITE} & metrics.keys():
        raise ValueError(f"metrics may not be named {sorted(reserved)}")
    row: dict[str, Any] = {"step": step}
    not_finite = {}
    for name, value in metrics.items():
        if value is not None and not isinstance(value, str | bool | int):
            value = float(value)
            if not math.isfinite(value):
                not_finite[name] = repr(value)
                value = None
        row[name] = value
    return {**row, NOT_FINITE: not_finite} if not_finite else row


def _parse(path: Path, content: bytes) -> list[tuple[dict[str, Any], str]]:
    """Return the rows with their lines, without an incomplete last line."""
    rows = []
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, data in enumerate(lines, start=1):
        try:
            line = data.decode()
            row = json.loads(line)
            _check_row(row)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise CheckpointError(f"{path}:{number}: not a row of metrics ({error}); repair or move the file") from None
        rows.append((row, line))
    return rows


def _check_row(row: object) -> None:
    """Refuse what `MetricsLog.write` did not write."""
    if not isinstance(row, dict) or type(row.get("step")) is not int or not 0 <= row["step"] <= MOST_STEPS:
        raise ValueError("no step")
    not_finite = row.get(NOT_FINITE, {})
    if not isinstance(not_finite, dict) or not all(value in ("nan", "inf", "-inf") for value in not_finite.values()):
        raise ValueError(f"{NOT_FINITE} must hold nan, inf or -inf by the name of a metric")


def _ranges(steps: Sequence[int]) -> str:
    """Write steps as `3, 5 to 7`, the first few of them."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    shown = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs[:SHOWN]]
    return ", ".join(shown) + (" ..." if len(runs) > SHOWN else "")
