"""Times a worker's rounds and their phases with only the standard library, so that every side can use it."""

import functools
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "trl", "rlhf-ppo")
"""Packages whose versions are reported with each figure."""

Naming = str | Callable[..., str | None]
"""A phase, or a function of the call's arguments that names it (None: part of the phase around it)."""


class Stopwatch:
    """Seconds by round and by phase. Time counts for the innermost phase; time outside all phases is `other`."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.phases: list[dict[str, float]] = []
        self._running: list[str] = ["other"]
        self._spent: dict[str, float] = {}
        self._round_start = self._since = time.perf_counter()

    def start(self) -> None:
        """Begin a round here; earlier time does not count."""
        self._spent = {}
        self._round_start = self._since = time.perf_counter()

    def lap(self) -> None:
        """End the round, and begin the next one."""
        self._charge()
        self.seconds.append(self._since - self._round_start)
        self.phases.append(dict(self._spent))
        self._spent, self._round_start = {}, self._since

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the time inside to a phase."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def wrap(self, owner: Any, attribute: str, naming: Naming) -> None:
        """Charge every call of `owner.attribute` to a phase.

        A missing attribute is ignored: its time then appears as `other`, and the round is timed anyway.
        """
        function = getattr(owner, attribute, None)
        if function is None:
            return

        @functools.wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            name = naming if isinstance(naming, str) else naming(*args, **options)
            if name is None:
                return function(*args, **options)
            with self.phase(name):
                return function(*args, **options)

        setattr(owner, attribute, timed)

    def _charge(self) -> None:
        now = time.perf_counter()
        name = self._running[-1]
        self._spent[name] = self._spent.get(name, 0.0) + now - self._since
        self._since = now


def serve(measure: Callable[[dict[str, Any], Stopwatch], dict[str, Any]]) -> None:
    """Run a worker: `python WORKER.py WORK.json RESULT.json`.

    Args:
        measure: does and times the work that the first file describes; its return value is added to the result.
    """
    work, result = (Path(argument) for argument in sys.argv[1:3])
    watch = Stopwatch()
    extra = measure(json.loads(work.read_text(encoding="utf-8")), watch)
    found = {
        "seconds": watch.seconds,
        "phases": watch.phases,
        "peak_bytes": peak_bytes(),
        "versions": versions(),
        **extra,
    }
    result.write_text(json.dumps(found), encoding="utf-8")


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far."""
    unit = 1 if platform.system() == "Darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def versions() -> dict[str, str]:
    """Return the version of each package of this environment that a figure depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
