"""Runs that are followed: their page, made again when files have changed, but not so often that it costs much."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rlhf.errors import RlhfError
from rlhf.report.page import html, waiting_html
from rlhf.report.reading.frontier import DIRECTORY, FILE
from rlhf.report.reading.run import read_run

PATTERNS = (
    "metrics.jsonl",
    "circumstances.json",
    "comparison.json",
    "complete.json",
    "profile.json",
    "samples/*",
    f"{DIRECTORY}/{FILE}",
)
"""The files of a stage whose change makes a new page."""
MIN_SECONDS = 5.0
"""Between two pages."""
COST = 20
"""A page is made again at the earliest after this many times what the last one cost: training needs the processor."""


class Watched:
    """The page of runs. Several threads may ask for it."""

    def __init__(self, paths: Sequence[Path], clock: Callable[[], float] = time.monotonic) -> None:
        """Follow the runs in directories, which may still be empty."""
        self._paths = paths
        self._clock = clock
        self._lock = threading.Lock()
        self._page, self._version = "", ""
        self._next = -float("inf")

    def version(self) -> str:
        """Return the version of the page that `page` would return now."""
        with self._lock:
            return self._version if self._clock() < self._next else self._signature()

    def page(self) -> str:
        """Return the page, made again where it is due; while there is no run that can be read, one that says so."""
        with self._lock:
            if self._clock() < self._next:
                return self._page
            version = self._signature()
            if version != self._version:
                began = self._clock()
                self._page, self._version = self._made(version), version
                cost = self._clock() - began
                self._next = self._clock() + max(MIN_SECONDS, COST * cost)
            return self._page

    def _made(self, version: str) -> str:
        try:
            return html([read_run(path) for path in self._paths], version=version)
        except RlhfError as problem:
            return waiting_html(str(problem), [str(path) for path in self._paths], version=version)

    def _signature(self) -> str:
        told = "\n".join(line for path in self._paths for line in _state(path))
        return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:16]


def _state(directory: Path) -> Iterator[str]:
    for pattern in PATTERNS:
        for place in (pattern, f"*/{pattern}"):
            for path in sorted(directory.glob(place)):
                try:
                    found = path.stat()
                except OSError:  # removed meanwhile
                    continue
                yield f"{path} {found.st_size} {found.st_mtime_ns}"
