"""The peers' Python environments: each created once, from exact pins, under the cache."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from rlhf.fetch import cache_home

PINS = Path(__file__).parent / "pins"
MARK = "installed.sha256"
"""File in an environment with the digest of its pins; written last."""
INSTALL_SECONDS = 3600.0

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}
"""Variables of every side, added to the caller's environment."""


class LeftOut(Exception):
    """A side that cannot be measured, and why."""


def python_of(name: str, *, whole: bool = False) -> Path:
    """Return the Python of the environment made from `pins/NAME.txt`; create the environment if it is missing.

    `whole` installs what is listed and nothing that it requires beyond.

    Raises:
        LeftOut: pip failed; its last line is in the message.
    """
    pins, place = PINS / f"{name}.txt", cache_home() / "benchmarks" / name
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f"{name}.lock")):
        if not _is_made(place, digest):
            print(f"making the environment {place} from {pins.name} (once) ...", file=sys.stderr, flush=True)
            shutil.rmtree(place, ignore_errors=True)
            _run([sys.executable, "-m", "venv", str(place)])
            # The last line reports a failure; it must not be pip's notice of a newer pip.
            quiet = ["--quiet", "--disable-pip-version-check", *(["--no-deps"] if whole else [])]
            _run([str(_python_in(place)), "-m", "pip", "install", *quiet, "--requirement", str(pins)])
            (place / MARK).write_text(digest, encoding="utf-8")
    return _python_in(place)


def variables_of(name: str | None) -> dict[str, str]:
    """Return the environment variables of a side: ours, and for a peer without the paths to our packages."""
    hidden = () if name is None else ("PYTHONPATH", "PYTHONHOME")
    return {**{key: value for key, value in os.environ.items() if key not in hidden}, **OFFLINE}


def _is_made(place: Path, digest: str) -> bool:
    mark = place / MARK
    return mark.is_file() and mark.read_text(encoding="utf-8") == digest and _python_in(place).exists()


def _python_in(place: Path) -> Path:
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _run(command: list[str]) -> None:
    try:
        subprocess.run(  # noqa: S603 - no shell, and the arguments are our own
            command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except subprocess.CalledProcessError as problem:
        lines = (problem.stderr or problem.stdout or "").strip().splitlines() or ["no output"]
        raise LeftOut(f"{' '.join(command[1:4])} failed: {lines[-1]}") from None
    except subprocess.TimeoutExpired:
        raise LeftOut(f"{' '.join(command[1:4])} took more than {INSTALL_SECONDS:.0f} s") from None
