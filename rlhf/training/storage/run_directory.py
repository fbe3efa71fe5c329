"""The directory of one run: locked while the run lives, resumed or refused when it exists, marked when complete."""

import fcntl
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self

from rlhf.errors import CheckpointError
from rlhf.training.storage.atomic import write_atomic
from rlhf.training.storage.manifest import JSON

LOCK = "run.lock"
COMPLETE = "complete.json"
SHOWN = 3
"""Differences that a refusal names."""


class RunDirectory:
    """Holds the lock of an output directory from `__enter__` to `__exit__`.

    The lock file stays behind: it marks the directory as one of ours. Enter before anything else is written there.
    """

    def __init__(
        self,
        path: Path,
        *,
        fingerprint: str,
        settings: Mapping[str, JSON] = MappingProxyType({}),
        resume: Literal["auto", "never"] = "auto",
        is_main: bool = True,
    ) -> None:
        """Describe the directory; nothing is touched before `__enter__`.

        Args:
            path: created if missing.
            fingerprint: what must not change for the result to count as complete, such as the config's hash.
            settings: what the fingerprint covers, by names that a user knows: a refusal says which of them differ.
            resume: "auto" continues a run that exists, "never" refuses it.
            is_main: False on all processes but one: then nothing is checked, locked or written.
        """
        self.path = path
        self.fingerprint = fingerprint
        self.settings = settings
        self.resume = resume
        self.is_main = is_main
        self._lock: int | None = None

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The file of the metrics."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """Where trackers write."""
        return self.path / "events"

    @property
    def samples(self) -> Path:
        """Where samples of the policy are written."""
        return self.path / "samples"

    def mark_complete(self) -> None:
        """Mark the result as complete; call it when all else is written."""
        if self.is_main:
            try:
                marker = {"fingerprint": self.fingerprint, "settings": dict(self.settings)}
                write_atomic(self.path / COMPLETE, json.dumps(marker) + "\n")
            except OSError as error:
                raise CheckpointError(f"{self.path / COMPLETE}: cannot be written: {error}") from error

    def __enter__(self) -> Self:
        """Make and lock the directory.

        Raises:
            CheckpointError: another run uses it, it holds files of something else, it holds a run that may not be
                resumed, or it cannot be written.
        """
        if not self.is_main:
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign_files()
            self._lock = _locked(self.path / LOCK)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be used as output_dir: {error}") from error
        try:
            self._refuse_other_run()
        except CheckpointError:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the lock."""
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _refuse_foreign_files(self) -> None:
        names = sorted(path.name for path in self.path.iterdir())
        if names and LOCK not in names:
            raise CheckpointError(
                f"{self.path}: holds files that are not of a run ({', '.join(names[:3])}); choose another output_dir"
            )

    def _refuse_other_run(self) -> None:
        exists = any(path.name != LOCK for path in self.path.iterdir())
        if exists and self.resume == "never":
            raise CheckpointError(f"{self.path}: holds a run; set resume=auto to go on, or choose another output_dir")
        if (self.path / COMPLETE).exists() and not is_complete(self.path, self.fingerprint):
            raise CheckpointError(
                f"{self.path}: holds the result of a run with another config{self._differences()}; choose another "
                "output_dir, or remove the directory"
            )

    def _differences(self) -> str:
        """Name what the finished run had otherwise, as in ` (steps: 4 -> 8)`; nothing where that is not known."""
        saved = _marker(self.path).get("settings")
        if not isinstance(saved, dict) or not saved:
            return ""
        keys = [key for key in sorted({*saved, *self.settings}) if saved.get(key) != self.settings.get(key)]
        shown = [f"{key}: {json.dumps(saved.get(key))} -> {json.dumps(self.settings.get(key))}" for key in keys[:SHOWN]]
        more = [f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
        return f" ({', '.join([*shown, *more]) or 'the content of data or models differs'})"


def is_complete(path: Path, fingerprint: str) -> bool:
    """Whether the directory holds the whole result of a run with this fingerprint."""
    return _marker(path).get("fingerprint") == fingerprint


def _marker(path: Path) -> dict[str, Any]:
    try:
        marker = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _locked(path: Path) -> int:
    """Return a descriptor that holds the lock until it is closed or the process ends, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    except BlockingIOError:
        holder = os.read(descriptor, 300).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise CheckpointError(
            f"{path.parent}: in use by {holder}; wait for it, stop it, or choose another output_dir"
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
