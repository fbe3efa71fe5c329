"""Writes requirements.lock: the sha256 of each pinned package, as PyPI states it for this Python and platform.

Run it by hand when constraints.txt changes: `python .ci/security/lock.py`. torch is left out: its build depends on the
index that you choose (CPU, or one of several CUDA), and PyPI's brings packages that are not pinned here.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = ROOT / "constraints.txt"
LOCK = ROOT / "requirements.lock"
LEFT_OUT = ("torch",)
OTHER_PLACES = ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX")


def pins() -> list[str]:
    """Return the lines of constraints.txt that the lock covers."""
    lines = [line for line in PINS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [line for line in lines if line.partition("==")[0] not in LEFT_OUT]


def hashes(wanted: list[str]) -> dict[str, str]:
    """Return the sha256 of the file that pip would install for each pin, asking PyPI alone."""
    kept = {name: value for name, value in os.environ.items() if name not in OTHER_PLACES}
    options = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary", ":all:", "--quiet", "--report", "-"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pip", "install", *options, *wanted],
        env={**kept, "PIP_CONFIG_FILE": os.devnull}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {
        canonical(each["metadata"]["name"]): each["download_info"]["archive_info"]["hashes"]["sha256"]
        for each in json.loads(done.stdout)["install"]
    }
    return {pin: found[canonical(pin.partition("==")[0])] for pin in wanted}


def canonical(name: str) -> str:
    """Return the one form of a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Write the lock."""
    python = f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"
    lines = [
        f"# Made by .ci/security/lock.py for {python} on {platform.system()} {platform.machine()}: wheels of PyPI.",
        "# Elsewhere the packages in pure Python have the same hashes; run the script there for the others.",
        f"# Left out: {', '.join(LEFT_OUT)}, whose build depends on the index; install it first.",
        "# pip install --no-deps --require-hashes -r requirements.lock",
    ]
    found = hashes(pins())
    lines += [f"{pin} --hash=sha256:{sha256}" for pin, sha256 in found.items()]
    LOCK.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
