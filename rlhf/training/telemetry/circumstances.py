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


def write_circumstances(
    directory: Path, facts: Mapping[str, JSON], from_step: int | None, stop: tuple[int, str] | None = None
) -> None:
    """Write circumstances and other facts into a run directory; starts and stops get a line where one is given.

    Args:
        directory: of the run.
        facts: replace those of the same names.
        from_step: steps that were done before a start; above 0 it is a resumed one. None: this is no start.
        stop: the last step before a guard stopped the run, and why it did.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    path = directory / FILE
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    starts, stops = (_listed(path, name) for name in ("starts", "stops"))
    if from_step is not None:
        starts = [*starts, {"time": now, "from_step": from_step}]
    if stop is not None:
        stops = [*stops, {"time": now, "after_step": stop[0], "reason": stop[1]}]
    told = {**circumstances(), **facts, "starts": starts, **({"stops": stops} if stops else {})}
    write_output(path, json.dumps(told, indent=1) + "\n")


def _listed(path: Path, name: str) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # none yet, or of no use
        return []
    listed = content.get(name) if isinstance(content, dict) else None
    return listed if isinstance(listed, list) else []


def _version(library: str) -> str:
    try:
        return f"{library} {importlib.metadata.version(library)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{library} (not installed)"
