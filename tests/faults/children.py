"""Commands in child processes, as the trials start, kill, signal and wait for them."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

WAIT = 200
"""Seconds that a process may take on a busy machine."""
JOIN = 40
"""Seconds that a process waits for one that never comes: less than `WAIT`, after which the trial itself gives up."""
GLANCE = 0.002
"""Seconds between two looks at a process."""


class Starter:
    """Starts commands through `starter.py`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, **request: Any) -> int:
        """Return the answer to a request."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        if not select.select([self._process.stdout], [], [], WAIT)[0]:
            if request["verb"] == "wait":  # or its answer would be taken for that of the next request
                os.kill(request["pid"], signal.SIGKILL)
                self._process.stdout.readline()
            raise AssertionError(f"no answer to {request}")
        return int(self._process.stdout.readline())


class Ended(NamedTuple):
    """How a command ended; a status below 0 is that of a signal."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Its errors, without the warnings of libraries."""
        return [line for line in self.err.splitlines() if "error:" in line]


class Started(NamedTuple):
    """A process that was started."""

    pid: int
    out: Path
    err: Path
    worker: Path
    starter: Starter

    def ended(self) -> tuple[int, list[str]]:
        """Wait for its end; return its status, and its errors but for the warnings of libraries."""
        found = self.end()
        assert "Traceback" not in found.err, found.err
        return found.status, found.errors

    def end(self) -> Ended:
        """Wait for its end, and return all that it printed."""
        status = self.starter.ask(verb="wait", pid=self.pid)
        return Ended(status, self.out.read_text(errors="replace"), self.err.read_text(errors="replace"))

    def used(self) -> float:
        """The seconds of processor time that it has used; infinite once it has ended."""
        with suppress(OSError):
            if Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9
        return float("inf")

    def timed(self) -> tuple[Ended, float]:
        """Wait for its end; return the seconds of processor time too."""
        seen = [0.0]
        wait_until(lambda: (seen.append(self.used()) or seen[-1]) == float("inf"), glance=GLANCE)
        return self.end(), seen[-2]

    def after(self, seconds: float, number: int = signal.SIGKILL) -> "Started":
        """Send a signal once it has used so many seconds of processor time, unless it ends before."""
        wait_until(lambda: self.used() >= seconds, glance=GLANCE)
        self.signal(number)
        return self

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended does not mind."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


def wait_until(condition: Callable[[], bool], glance: float = 0.02) -> None:
    """Look again and again until something is so; fail if it never is."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(glance)


def member(rank: int, port: int, join_seconds: float) -> dict[str, str]:
    """The variables of one process of two."""
    own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    return {**own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RLHF_JOIN_SECONDS": str(join_seconds)}
