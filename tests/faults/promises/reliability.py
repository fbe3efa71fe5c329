"""Run as a script: runs the tests that hold the promises, counts how they end, and writes docs/reliability.md.

`--trials` and `--stride` are handed to pytest. `--only faults/test_damage` runs the tests whose names match that
pattern, and keeps the figures of the others; `--words` runs nothing and writes the page again.
"""

import argparse
import json
import os
import platform
import re
import resource
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from promise import CHECKS, FAULTS, Promise

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = HERE / "figures.json"
STORES = HERE / "stores.md"
LIBRARIES = ("torch", "transformers", "accelerate", "safetensors")
KINDS = {
    "killed at an operation on a file": ("faults/test_operations.py",),
    "killed at a random moment": ("faults/test_moments.py",),
    "stopped by a signal": ("faults/test_signals.py",),
    "disk full, limited, failing": ("faults/test_disks.py",),
    "checkpoint damaged": ("faults/test_damage.py",),
    "fault on one process of two": ("faults/test_ranks.py",),
}
"""The trials by what was done to the run, with their files."""
OPENING = """# When things go wrong

What rlhf promises when a run is killed, a disk is full, a row is bad or somebody attacks; which tests hold each
promise; and what came of them. `make reliability` runs these tests and writes this page.
"""
TRIALS = """## Trials

Each trial disturbs the real command line in a process of its own, starts the same command again, and compares what is
left with what an undisturbed run leaves: every file byte for byte (but for times), the metrics but for times, the list
of files. Other checks look at exit status, message, and what is left meanwhile.

| what was done | trials | of these killed or stopped | ended in the same bytes | other checks | of these right |
|---|---|---|---|---|---|"""


class Counts:
    """A plugin of pytest that counts how the cases of each test ended, and adds up the figures of trials."""

    def __init__(self) -> None:
        self.cases: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.figures: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Count one phase of one case."""
        name = report.nodeid.partition("[")[0].removeprefix("tests/")
        if report.when == "call" or report.outcome != "passed":
            self.cases[name][report.outcome] += 1
        if report.when == "teardown":
            for key, figures in report.user_properties:
                if key == "figures":
                    self.figures[name].update(figures)


def run(options: argparse.Namespace, before: dict[str, Any]) -> dict[str, Any]:
    """Run the named tests; return what the page is written from."""
    import pytest

    counts = Counts()
    chosen = {test for promise in (*FAULTS, *CHECKS) for test in promise.tests if re.search(options.only, test)}
    kept = {key: {test: each for test, each in before.get(key, {}).items() if test not in chosen}
            for key in ("cases", "figures")}  # fmt: skip
    os.chdir(ROOT)
    given = [
        "-q",
        "-m",
        "",
        "-n",
        str(options.workers),
        "--dist",
        "worksteal",
        f"--trials={options.trials}",
        f"--stride={options.stride}",
    ]
    files = sorted({f"tests/{test.partition('::')[0]}" for test in chosen})
    names = " or ".join(sorted({test.partition("::")[2] for test in chosen}))
    is_whole = pytest.main([*given, "-k", names, *files], plugins=[counts]) in (0, 1)
    for test in chosen - counts.cases.keys() if is_whole else ():  # its file is skipped, for want of a library
        counts.cases[test]["skipped"] += 1
    used = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return {
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in LIBRARIES},
        "seconds": round(sum(each.ru_utime + each.ru_stime for each in used))
        + (before["seconds"] if options.only else 0),
        "trials": options.trials,
        "stride": options.stride,
        "cases": _sorted(kept["cases"] | counts.cases),
        "figures": _sorted(kept["figures"] | counts.figures),
    }


def processor() -> str:
    """Name the processor and its cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def page(found: dict[str, Any]) -> str:
    """Return the page."""
    parts = [OPENING, summary(found), *trials(found), "## The forty faults\n", table(FAULTS, found)]
    parts += ["## Security\n", table(CHECKS, found)]
    if STORES.is_file():
        parts.append(STORES.read_text())
    parts += ["## The tests\n", *listing("Fault", FAULTS, found), *listing("Check", CHECKS, found)]
    return "\n".join(parts).rstrip() + "\n"


def summary(found: dict[str, Any]) -> str:
    """Say what ran where."""
    held = {kind: sum(_holds(promise, found) for promise in promises) for kind, promises in
            (("faults", FAULTS), ("checks", CHECKS))}  # fmt: skip
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    each = "each operation" if found["stride"] == 1 else f"one operation in {found['stride']}"
    told = [
        f"**{held['faults']} of {len(FAULTS)} faults and {held['checks']} of {len(CHECKS)} security checks hold**: "
        "each of their tests ran, and no case failed.",
        f"Measured on {found['processor']}; Python {found['python']}, {versions}. "
        f"All tests of this page took {found['seconds']} seconds of processor time.",
    ]
    if any(name.startswith("faults/test_moments") for name in found["figures"]):
        told.append(f"Trials: {found['trials']} random kills of each kind of run, and kills at {each} on a file.")
    named = {test for promise in (*FAULTS, *CHECKS) for test in promise.tests}
    if missing := len(named - found["cases"].keys()):
        told.append(
            f"{missing} of the {len(named)} tests have not run on this machine; what rests on them does not count."
        )
    return "\n\n".join(textwrap.fill(paragraph, 120) for paragraph in told) + "\n"


def trials(found: dict[str, Any]) -> list[str]:
    """Return the table of trials."""
    lines = [TRIALS]
    for kind, files in KINDS.items():
        totals: Counter[str] = Counter()
        for name, figures in found["figures"].items():
            if name.startswith(files):
                totals.update(figures)
        ended = totals["killed"] + totals["stopped"]
        cells = [totals["tried"], ended, totals["byte-equal"], totals["checks"], totals["checks right"]]
        lines.append(f"| {kind} | {' | '.join(str(cell or '') for cell in cells)} |")
    return [*lines, ""]


def table(promises: Sequence[Promise], found: dict[str, Any]) -> str:
    """Return what goes wrong, what happens then, and the figures."""
    lines = ["| | what goes wrong | what happens then | tests passed |", "|---|---|---|---|"]
    lines += [f"| {each.number} | {each.fault} | {each.kept} | {_figure(each, found)} |" for each in promises]
    return "\n".join(lines) + "\n"


def listing(kind: str, promises: Sequence[Promise], found: dict[str, Any]) -> list[str]:
    """Name the tests of each promise, as sentences."""
    lines = []
    for promise in promises:
        lines.append(f"{kind} {promise.number}:\n")
        for test in promise.tests:
            file, _, name = test.partition("::")
            told = name.removeprefix("test_").replace("_", " ")
            lines.append(f"- {told} (`{file}`: {_cases(test, found)}{_more(test, found)})")
        lines.append("")
    return lines


def _sorted(found: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {name: dict(sorted(numbers.items())) for name, numbers in sorted(found.items())}


def _holds(promise: Promise, found: dict[str, Any]) -> bool:
    """Whether every test ran, none failed, and at least one case was not skipped."""
    cases = [found["cases"].get(test, {"missing": 1}) for test in promise.tests]
    return all(set(each) <= {"passed", "skipped"} for each in cases) and any("passed" in each for each in cases)


def _figure(promise: Promise, found: dict[str, Any]) -> str:
    cases = [found["cases"].get(test, {}) for test in promise.tests]
    passed, total = sum(case.get("passed", 0) for case in cases), sum(sum(case.values()) for case in cases)
    tried = sum(found["figures"].get(test, {}).get("tried", 0) for test in promise.tests)
    equal = sum(found["figures"].get(test, {}).get("byte-equal", 0) for test in promise.tests)
    more = f"; {tried} trials" + (f", {equal} byte-equal" if equal else "") if tried else ""
    return f"{passed} of {total}{more}"


def _cases(test: str, found: dict[str, Any]) -> str:
    cases = found["cases"].get(test)
    if cases is None:
        return "did not run"
    return ", ".join(f"{number} {outcome}" for outcome, number in cases.items())


def _more(test: str, found: dict[str, Any]) -> str:
    figures = found["figures"].get(test, {})
    return "".join(f"; {number} {what}" for what, number in figures.items())


def main(arguments: Sequence[str]) -> int:
    """Run, write, and return 0 if every promise holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", metavar="PATTERN")
    parser.add_argument("--words", action="store_true", help="run nothing; take the figures of the last run")
    options = parser.parse_args(arguments)
    if not options.words:
        before = json.loads(FIGURES.read_text()) if options.only else {}
        FIGURES.write_text(json.dumps(run(options, before), indent=1) + "\n")
    found = json.loads(FIGURES.read_text())
    PAGE.write_text(page(found))
    return 0 if all(_holds(promise, found) for promise in (*FAULTS, *CHECKS)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
