"""What a trial does: run a command, disturb it, start it again, and compare with a run that nothing disturbed."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

LINES = 6
"""Failures that a test shows."""


class Wholes(NamedTuple):
    """What undisturbed runs left, for all tests."""

    known: dict[tuple[str, ...], Any]
    fresh: Callable[[str], Path]
    """Makes a directory that is kept until the last test."""


class Trials:
    """The trials of one test."""

    def __init__(
        self,
        variants: ModuleType,
        on_disk: ModuleType,
        scene: dict[str, Any],
        start: Callable[..., Any],
        directory: Path,
        wholes: Wholes,
    ) -> None:
        self._variants, self._on_disk, self._scene, self._start = variants, on_disk, scene, start
        self._directory, self._wholes, self._fresh = directory, wholes.known, wholes.fresh
        self.figures: Counter[str] = Counter()
        """What was tried and how it ended, for the report."""
        self.failures: list[str] = []

    def arguments(self, name: str) -> list[str]:
        """Return the command of a variant."""
        return list(self._scene[name].arguments)

    def begin(self, name: str, place: Path, *more: str, **options: Any) -> Any:
        """Start a variant's command in a directory."""
        return self._start([*self.arguments(name), *more], cwd=place, **self._scene[name].variables, **options)

    def injection(self, place: Path, what: str, at: int = -1, **more: Any) -> dict[str, Any]:
        """Describe what a process is to do to itself; its operations are logged."""
        log = self._directory / "operations"
        log.unlink(missing_ok=True)
        return {"under": str(place), "log": str(log), "what": what, "at": at, **more}

    def whole(self, name: str, *more: str, prepare: Callable[[Path], object] | None = None) -> Any:
        """Run a variant undisturbed, and return what it leaves, which nothing may change: other tests see it too.

        `prepare` fills the directory before; what comes of that is this test's own.
        """
        if prepare is not None:
            place = self._fresh("whole")
            prepare(place)
            return self._run(place, name, *more)
        key = (name, *more)
        if key not in self._wholes:
            self._wholes[key] = self._run(self._fresh("whole"), name, *more)
        return self._wholes[key]

    def whole_of_two(self, name: str, both: Callable[[Path], list[Any]]) -> Any:
        """Do the same with two processes of one run, which `both` starts in a directory."""
        key = ("two processes", name)
        if key not in self._wholes:
            place = self._fresh("whole")
            first, second = both(place)
            (ended, seconds), other = first.timed(), second.end()
            assert (ended.status, other.status) == (0, 0), ended.err + other.err
            self._wholes[key] = self._left(place, seconds, [])
        return self._wholes[key]

    def _run(self, place: Path, name: str, *more: str) -> Any:
        process = self.begin(name, place, *more, injection=self.injection(place, "count"))
        ended, seconds = process.timed()
        assert ended.status == 0, ended.err
        return self._left(place, seconds, (self._directory / "operations").read_text().splitlines())

    def _left(self, place: Path, seconds: float, operations: list[str]) -> Any:
        timeless = self._on_disk.timeless(place / self._variants.OUTPUT)
        return self._variants.Whole(place, self._on_disk.contents(place), timeless, seconds, operations)

    def place(self, prepare: Callable[[Path], object] = lambda place: None, name: str = "place") -> Path:
        """Return a fresh directory."""
        place: Path = self._variants.cleared(self._directory / name)
        prepare(place)
        return place

    def again(self, told: str, name: str, place: Path, whole: Any, *more: str) -> Any:
        """Start the command again, and compare what it leaves with what an undisturbed run left."""
        ended = self.begin(name, place, *more).end()
        self.compare(told, [ended], place, whole)
        return ended

    def compare(self, told: str, ended: list[Any], place: Path, whole: Any) -> None:
        """Note how a disturbed run that was started again ended."""
        bad = [each for each in ended if each.status != 0]
        found = [f"status {each.status}: {each.err[-400:]}" for each in bad]
        found = found or self._variants.differences(place, whole, self._on_disk)
        self.figures["tried"] += 1
        self.figures["byte-equal"] += not found
        if found:
            self.note(f"{told}: {'; '.join(found)}")

    def note(self, failure: str) -> None:
        """Remember a failure; the other trials go on."""
        self.failures.append(failure)

    def check(self, holds: bool, told: str) -> None:
        """Count one thing that must be so besides."""
        self.figures["checks"] += 1
        self.figures["checks right"] += holds
        if not holds:
            self.note(told)

    def end(self) -> None:
        """Fail if a trial failed."""
        shown = "\n".join(self.failures[:LINES])
        assert not self.failures, f"{len(self.failures)} failures in {self.figures['tried']} trials:\n{shown}"

    def copy(self, whole: Any, *without: str) -> Callable[[Path], None]:
        """Return what prepares a directory as an undisturbed run left it, but for some files."""

        def prepare(place: Path) -> None:
            shutil.copytree(whole.place, place, dirs_exist_ok=True)
            for name in without:
                path = place / self._variants.OUTPUT / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()

        return prepare
