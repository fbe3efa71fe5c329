"""What a run runs on: machine, versions, date; and the file in a run directory that says so."""

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf.training.storage.atomic import write_output
from rlhf.training.storage.manifest import JSON
from rlhf.training.telemetry.machine import processor_name

FILE = "circumstances.json"
LIBRARIES = ("rlhf-ppo", "torch", "transformers")


def circumstances(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Return machine, versions and date."""
    threads = torch.get_num_threads()
    return {
        "machine": f"{processor_name()}, {threads} thread{'s' if threads > 1 else ''}, "
        f"{platform.system()} {platform.machine()}",
        "versions": ", ".join([f"python {platform.python_version()}", *(_version(name) for name in libraries)]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write_circumstances(directory: Path, facts: Mapping[str, JSON], from_step: int | None) -> None:
    """Write circumstances and other facts into a run directory; `starts` gets a line where a step is given.

    A start has the time and the number of steps that were done before: above 0 it is a resumed one.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    path = directory / FILE
    starts = _starts(path)
    if from_step is not None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        starts = [*starts, {"time": now, "from_step": from_step}]
    write_output(path, json.dumps({**circumstances(), **facts, "starts": starts}, indent=1) + "\n")


def _starts(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none yet, or of no use
        return []
    starts = content.get("starts") if isinstance(content, dict) else None
    return starts if isinstance(starts, list) else []


def _version(library: str) -> str:
    try:
        return f"{library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{library} (not installed)"
