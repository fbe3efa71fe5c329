"""The directory of one run: locked while the run lives, resumed or refused when it exists, marked when complete."""

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from rlhf.disk import write_atomic
from rlhf.errors import CheckpointError
from rlhf.training.storage.atomic import make_directory
from rlhf.training.storage.fingerprint import lengthened
from rlhf.training.storage.leftovers import RESULTS, sweep
from rlhf.training.storage.listing import Damaged, Entry, check_file, entry_of, listed_files
from rlhf.training.storage.manifest import JSON

LOCK = "run.lock"
COMPLETE = "complete.json"
CARD = "README.md"
"""The card of a model: people may edit it, and the result is whole all the same."""
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
        resume: str = "auto",
        is_main: bool = True,
    ) -> None:
        """Describe the directory; nothing is touched before `__enter__`.

        Args:
            path: created if missing.
            fingerprint: what must not change for the result to count as complete, such as the config's hash.
            settings: what the fingerprint covers, by names that a user knows: a refusal says which of them differ.
            resume: "auto" continues a run that exists, "never" refuses it; or the checkpoint to continue from.
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

    def mark_complete(self, files: Iterable[Path] = ()) -> None:
        """Mark the result as complete; call it when all else is written.

        Args:
            files: what belongs to the result besides the directories of models.
        """
        if self.is_main:
            try:
                marker = {
                    "fingerprint": self.fingerprint,
                    "settings": dict(self.settings),
                    "files": self._written(files),
                }
                write_atomic(self.path / COMPLETE, json.dumps(marker) + "\n")
            except OSError as error:
                raise CheckpointError(f"{self.path / COMPLETE}: cannot be written: {error}") from error

    def mark_unfinished(self) -> None:
        """Take the mark back: a longer run goes on from here."""
        if self.is_main:
            (self.path / COMPLETE).unlink(missing_ok=True)

    def refuse_to_start_over(self) -> None:
        """Refuse to begin at the first step where a shorter run has finished.

        Raises:
            CheckpointError: says how much longer this run is.
        """
        if (self.path / COMPLETE).exists() and not _is_marked(self.path, self.fingerprint):
            raise CheckpointError(
                f"{self.path}: holds the result of a shorter run{self._differences()}, and no checkpoint to go on "
                "from (checkpoints.every saves them); choose another output_dir, or remove the directory"
            )

    def __enter__(self) -> Self:
        """Make and lock the directory. A finished run is let in if this one is the same and longer.

        Raises:
            CheckpointError: another run uses it, it holds files of something else, it holds a run that may not be
                resumed, or it cannot be written.
        """
        if not self.is_main:
            return self
        try:
            make_directory(self.path)
            self._refuse_foreign_files()
            self._lock = _locked(self.path / LOCK)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be used as output_dir: {error}") from error
        try:
            self._refuse_other_run()
            self._refuse_lost_result()
            sweep(self.path, self.checkpoints)
        except OSError as error:
            self._release()
            raise CheckpointError(f"{self.path}: cannot be used as output_dir: {error}") from error
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
        is_other = (self.path / COMPLETE).exists() and not _is_marked(self.path, self.fingerprint)
        if is_other and not self._is_longer():
            raise CheckpointError(
                f"{self.path}: holds the result of a run with another config{self._differences()}; choose another "
                "output_dir, or remove the directory"
            )

    def _is_longer(self) -> bool:
        """Whether this run differs from the finished one in its length alone."""
        saved = _marker(self.path).get("settings")
        return self._has_same_content() and isinstance(saved, dict) and lengthened(saved, self.settings) is not None

    def _has_same_content(self) -> bool:
        """Whether data and models are those of the finished run: the part of a fingerprint behind the settings'."""
        return str(_marker(self.path).get("fingerprint")).partition("-")[2] == self.fingerprint.partition("-")[2]

    def _refuse_lost_result(self) -> None:
        """Say that a finished run's damaged result is made again; refuse where nothing is left to make it from."""
        reason = _damage(self.path) if _is_marked(self.path, self.fingerprint) else None
        if reason is None:
            return
        if self.metrics.exists() and not (self.checkpoints.is_dir() and any(self.checkpoints.iterdir())):
            raise CheckpointError(
                f"{self.path}: the result is complete but damaged: {reason}; no checkpoint is left to make it again "
                f"from: put the file back, or remove {COMPLETE} to begin at the first step"
            )
        print(f"{self.path}: the result is complete but damaged: {reason}; it is made again", flush=True)

    def _written(self, files: Iterable[Path]) -> dict[str, Entry]:
        """Return what the mark vouches for: the files of the models' directories that we wrote, and `files`."""
        written = {
            f"{name}/{file}": entry
            for name in RESULTS
            for file, entry in (listed_files(self.path / name) or {}).items()
            if file != CARD
        }
        return written | {str(file.relative_to(self.path)): entry_of(file) for file in files}

    def _differences(self) -> str:
        """Name what the finished run had otherwise, as in ` (steps: 4 -> 8)`; nothing where that is not known."""
        saved = _marker(self.path).get("settings")
        if not isinstance(saved, dict) or not saved:
            return ""
        keys = [key for key in sorted({*saved, *self.settings}) if saved.get(key) != self.settings.get(key)]
        shown = [f"{key}: {json.dumps(saved.get(key))} -> {json.dumps(self.settings.get(key))}" for key in keys[:SHOWN]]
        more = [f"and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
        content = [] if keys and self._has_same_content() else ["the content of data or models differs"]
        return f" ({', '.join([*shown, *more, *content])})"


def is_complete(path: Path, fingerprint: str) -> bool:
    """Whether the directory holds the whole result of a run with this fingerprint, undamaged."""
    return _is_marked(path, fingerprint) and _damage(path) is None


def _is_marked(path: Path, fingerprint: str) -> bool:
    return _marker(path).get("fingerprint") == fingerprint


def settings_of_result(path: Path) -> str | None:
    """Return the part of a finished run's fingerprint that stands for its settings; None where there is none."""
    found = _marker(path).get("fingerprint")
    return found.partition("-")[0] if isinstance(found, str) else None


def _damage(path: Path) -> str | None:
    """Say which file of a complete result is not as it was; None if all are."""
    files = _marker(path).get("files", {})
    try:
        if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
            raise Damaged(f"{COMPLETE} lists no files")
        for name, entry in files.items():
            check_file(path / name, entry, name)
    except (OSError, Damaged) as reason:
        return str(reason)
    return None


def _marker(path: Path) -> dict[str, Any]:
    try:
        marker = json.loads((path / COMPLETE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
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
