"""How the processes of a run find each other, within a minute or not at all; and who started them."""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch.distributed.distributed_c10d import _set_pg_timeout

from rlhf.errors import ConfigError, LostProcess

JOIN_SECONDS = 50.0
"""How long a process waits for the others to come."""
GRACE_SECONDS = 5.0
"""How much later it ends where the library does not keep to that."""
VARIABLE = "RLHF_JOIN_SECONDS"
"""Environment variable that replaces it, for machines whose processes start at very different times."""


def joined(make: Callable[[list[Any]], Accelerator], environment: Mapping[str, str], answer: timedelta) -> Accelerator:
    """Make the accelerator, which joins the other processes.

    Args:
        make: takes the handlers of accelerate's `kwargs_handlers`.
        environment: of this process.
        answer: how long a process waits for another once all have come.

    Raises:
        ConfigError: the port is in use.
        LostProcess: another process did not come.
    """
    seconds = _seconds(environment)
    place = f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"
    try:
        with _ending_after(seconds + GRACE_SECONDS, environment, place):
            made = make([InitProcessGroupKwargs(timeout=timedelta(seconds=seconds))])
    except (RuntimeError, ValueError) as error:
        if "MASTER_ADDR" not in environment:
            raise
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise ConfigError(
                f"MASTER_PORT: another program listens at {place} - choose another port (accelerate launch "
                "--main_process_port)"
            ) from error
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise LostProcess(_told(environment, place, seconds, line)) from error
    if torch.distributed.is_initialized():
        _set_pg_timeout(answer)
    return made


def launcher_of(environment: Mapping[str, str]) -> int | None:
    """Return the process that launched this one as one of a group; None where it was started by itself."""
    return os.getppid() if "TORCHELASTIC_RUN_ID" in environment else None


@contextmanager
def _ending_after(seconds: float, environment: Mapping[str, str], place: str) -> Iterator[None]:
    """End the process when the block takes too long: a port of another program can hold the library for ever."""

    def end() -> None:
        told = _told(environment, place, seconds, "no answer")
        print(f"process {environment.get('RANK')}: error: {told}", file=sys.stderr, flush=True)
        os._exit(LostProcess.exit_status)

    if "MASTER_ADDR" not in environment:
        yield
        return
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _told(environment: Mapping[str, str], place: str, seconds: float, reason: str) -> str:
    return (
        f"the {environment.get('WORLD_SIZE')} processes of the run did not meet at {place} within {seconds:g} s: "
        f"one ended before (its own message says why), or the port belongs to another program ({reason:.200}); "
        f"{VARIABLE} sets the seconds"
    )


def _seconds(environment: Mapping[str, str]) -> float:
    given = environment.get(VARIABLE, "")
    try:
        seconds = float(given or JOIN_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{VARIABLE}: expected seconds above 0, found {given!r}")
    return seconds
