"""What a child process does to itself: it counts its file operations, and is killed, or fails, at one of them.

An operation changes a file below one directory: it is opened for writing, made, renamed, removed, synced. All are seen
before they happen, by an audit hook of Python; `os.fsync`, which has no audit event, is wrapped.
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link", "os.symlink")

CONNECTIONS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")


class Injection(NamedTuple):
    """What happens below a directory, and where."""

    under: str
    log: str
    """Gets a line for each operation."""
    what: str = "count"
    """`count`; `signal`; `torn`: a signal, and half of what was not synced is lost; `error`; `limit`; `offline`."""
    at: int = -1
    """The operation, from 0; or the bytes of the largest file that can be written."""
    number: int = signal.SIGKILL
    """The signal, or the error's `errno`."""
    lasting: bool = False
    """Whether all later operations that write fail too, as on a full disk; those that remove something do not."""


class Watch:
    """Sees the operations of this process from now on."""

    def __init__(self, injection: Injection) -> None:
        self._injection = injection
        self._count = 0
        self._log = os.open(injection.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._is_inside = False
        self._synced: dict[str, int] = {}  # bytes of each file that are on the disk

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See an audit event."""
        if self._is_inside:
            return
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path, _, flags = arguments
            if flags & WRITING:
                self._operation("open", _absolute(path, -1))
        elif event in CHANGES:
            path = _absolute(arguments[0], _folder(event, arguments))
            if event == "os.mkdir" and os.path.isdir(path):  # it changes nothing, and whoever asks expects a refusal
                return
            self._operation(event.removeprefix("os."), path)

    def synced(self, descriptor: int) -> None:
        """See a sync that is about to happen."""
        self._operation("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))

    def _operation(self, kind: str, path: str) -> None:
        if not (path + "/").startswith(self._injection.under + "/"):
            return
        self._is_inside = True
        try:
            line = f"{kind} {os.path.relpath(path, self._injection.under)}"
            self._count += 1
            os.write(self._log, f"{line}\n".encode())
            self._act(kind, path)
        finally:
            self._is_inside = False

    def _act(self, kind: str, path: str) -> None:
        number, wanted = self._count - 1, self._injection
        if wanted.what == "error":
            is_later = wanted.lasting and number > wanted.at and kind in ("open", "mkdir", "fsync")
            if number == wanted.at or is_later:
                raise OSError(wanted.number, os.strerror(wanted.number), path)
        elif number == wanted.at and wanted.what in ("signal", "torn"):
            if wanted.what == "torn" and os.path.isfile(path):  # a directory's entries have no fixed order
                os.truncate(path, (os.path.getsize(path) + self._synced.get(path, 0)) // 2)
            os.kill(os.getpid(), wanted.number)
        if kind == "fsync" and os.path.isfile(path):
            self._synced[path] = os.path.getsize(path)


def inject(injection: Injection) -> None:
    """Watch this process, for ever."""
    if injection.what == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (injection.at, injection.at))
        return
    if injection.what == "offline":
        sys.addaudithook(lambda event, arguments: _refuse_connection(event, injection.log))
        return
    watch, fsync = Watch(injection), os.fsync

    def watched(descriptor: int) -> None:
        watch.synced(descriptor)
        fsync(descriptor)

    os.fsync = watched
    sys.addaudithook(watch.heard)


def _refuse_connection(event: str, log: str) -> None:
    if event in CONNECTIONS:
        with open(log, "a") as file:
            file.write(f"{event}\n")
        raise ConnectionError("this process is offline")


def _folder(event: str, arguments: tuple[Any, ...]) -> int:
    """Return the directory that an event's path starts from, -1 if it is the working directory."""
    place = {"os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.chmod": 2}.get(event)
    return -1 if place is None else int(arguments[place])


def _absolute(path: Any, folder: int) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    start = os.getcwd() if folder == -1 else os.readlink(f"/proc/self/fd/{folder}")
    return os.path.normpath(Path(start, os.fsdecode(path)))
