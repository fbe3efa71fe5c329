"""The shared library of the C++ sources: compiled once for a processor, compiler and source, then kept in the cache."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))
FLAGS = (
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Sums may be reordered, so that they become vector code. Not -ffast-math: it would lose NaN and change the rounding
    # mode of the whole process.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)
TIMEOUT = 600
"""Seconds for the compiler, which takes a few: a busy machine must not change which code a run uses."""
UNFINISHED = ".new-"
"""How the name of a directory begins in which a compiler works."""
log = logging.getLogger(__name__)


def load() -> ctypes.CDLL | None:
    """Load the library, compiling it where the cache has none; None, with one line in the log, where that fails."""
    compiler = shutil.which("g++")
    if compiler is None:
        log.warning("sampling and training run without compiled kernels: no g++ found")
        return None
    try:
        folder = cache_folder()
        if folder is None:
            with tempfile.TemporaryDirectory(prefix="rlhf-kernels-") as temporary:
                return ctypes.CDLL(str(compiled(compiler, Path(temporary) / "kernels.so")))
        target = folder / f"{_key(compiler)}.so"
        if not _is_whole(target):
            _publish(compiler, target)
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("sampling and training run without compiled kernels: %s", type(error).__name__)
        return None


def cache_folder() -> Path | None:
    """Return where libraries are kept; None where it cannot be written, or others can write it: they would run there.

    It is `kernels` in RLHF_HOME, else in `rlhf` of XDG_CACHE_HOME or ~/.cache.
    """
    home = os.environ.get("RLHF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "rlhf"
    folder = Path(home).expanduser() / "kernels"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError:
        return None
    is_private = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if is_private and os.access(folder, os.W_OK) else None


def compiled(compiler: str, target: Path) -> Path:
    """Compile the sources for this processor.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be compiled.
    """
    command = [compiler, *FLAGS, *map(str, SOURCES), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)  # noqa: S603 - our own source
    return target


def _key(compiler: str) -> str:
    """Return a sha256 of everything that decides the code: sources, flags, compiler, processor."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=TIMEOUT).stdout  # noqa: S603
    sources = [each.read_bytes() for each in (*SOURCES, *HEADERS)]
    parts = [*sources, repr(FLAGS).encode(), version, _processor().encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def _processor() -> str:
    """Return the processor's name and its instruction sets, for which `-march=native` compiles."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.version()}"
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "cache size")
    return "\n".join(sorted({line for line in lines if line.partition(":")[0].strip() in wanted}))


def _publish(compiler: str, target: Path) -> None:
    """Compile beside the target, and rename: processes that compile at once do not meet half a file."""
    _sweep(target.parent)
    with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=target.parent) as new:
        made = compiled(compiler, Path(new) / "kernels.so")
        ctypes.CDLL(str(made))  # what cannot be loaded is not kept
        mark = made.with_suffix(".sha256")
        mark.write_text(_digest(made), encoding="ascii")
        os.replace(made, target)
        os.replace(mark, target.with_suffix(".sha256"))


def _sweep(folder: Path) -> None:
    """Remove the directories of processes that were killed while they compiled."""
    for left in folder.glob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):  # another process sweeps too
            if time.time() - left.stat().st_mtime > 2 * TIMEOUT:  # no compiler works that long
                shutil.rmtree(left, ignore_errors=True)


def _is_whole(target: Path) -> bool:
    try:
        return target.with_suffix(".sha256").read_text(encoding="ascii") == _digest(target)
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
