"""Asks the package index for known weaknesses of the pinned versions, with pip-audit; `make check` calls it.

A weakness ends with status 1 and its id, unless `ignored.toml` says why it does not concern us. An index that does not
answer about weaknesses is said in one line and fails nothing: a check on a machine without a network still passes.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PINS = HERE.parents[1] / "constraints.txt"
IGNORED = HERE / "ignored.toml"
SECONDS = 600
"""What all questions together may take."""


class NoAnswer(Exception):
    """The index does not answer; the text says why."""


def main() -> int:
    """Return 1 if a pinned version has a known weakness, else 0; say what was found."""
    ignored = tomllib.loads(IGNORED.read_text(encoding="utf-8"))
    if without := [name for name, entry in ignored.items() if not str(entry.get("reason", "")).strip()]:
        print(f"{IGNORED.name}: {without[0]} has no reason", file=sys.stderr)
        return 1
    pins = [line for line in PINS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    try:
        audited(pins[:1])  # of an index that knows nothing we ask once, not for every package
        found = audited(pins)
    except NoAnswer as reason:
        print(f"pip-audit: nothing was audited: {reason}")
        return 0
    lines = weaknesses(found, ignored)
    skipped = sum("skip_reason" in package for package in found)
    print("\n".join([*lines, f"pip-audit: {len(found) - skipped} packages audited, {skipped} unknown to the index"]))
    return 1 if lines else 0


def audited(pins: Sequence[str]) -> list[dict[str, Any]]:
    """Return what pip-audit says about each pin.

    Raises:
        NoAnswer: the index cannot be reached, or knows none of them.
    """
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "pins.txt"
        file.write_text("\n".join(pins) + "\n", encoding="utf-8")
        done = run(["--requirement", str(file), "--no-deps", "--disable-pip", "--format", "json"])
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, LookupError):
        raise NoAnswer(["no output", *done.stderr.strip().splitlines()][-1][:200]) from None
    if all("skip_reason" in package for package in found):
        raise NoAnswer(f"the index does not answer about {found[0]['name'] if found else 'anything'}")
    return found


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run pip-audit of this environment.

    Raises:
        NoAnswer: it does not end in time.
    """
    if importlib.util.find_spec("pip_audit") is None:
        raise SystemExit("pip-audit is not installed: `make check` installs it, with the extra dev")
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--timeout", "15", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer within {SECONDS} s") from None


def weaknesses(found: Sequence[dict[str, Any]], ignored: dict[str, Any]) -> list[str]:
    """Return a line for each weakness that is not ignored under its id or another name of it."""
    lines = []
    for package in found:
        for each in package.get("vulns", []):
            names = [each["id"], *each.get("aliases", [])]
            if not any(name in ignored for name in names):
                mended = ", ".join(each.get("fix_versions", [])) or "no version yet"
                lines.append(f"{package['name']} {package['version']}: {' = '.join(names)}; mended in {mended}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
