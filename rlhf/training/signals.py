"""SIGTERM and SIGINT as a request to stop at the next step boundary, where a checkpoint can be saved."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAME_REQUEST_SECONDS = 0.5
"""A launcher repeats signals that the terminal already sent: one that comes this soon after the first is ignored."""


class StopFlag:
    """Remembers the first SIGTERM or SIGINT inside its `with` block; a second one ends the process at once.

    In a thread other than the main one, where python cannot handle signals, the flag is never set.
    """

    def __init__(self) -> None:
        """Make a flag that is not set."""
        self._signal: signal.Signals | None = None
        self._time = 0.0
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the run was asked to stop."""
        return self._signal is not None

    @property
    def exit_status(self) -> int:
        """What the process should return: 143 after SIGTERM, 130 after SIGINT, 0 when it was not asked to stop."""
        return 0 if self._signal is None else 128 + self._signal

    def __enter__(self) -> Self:
        """Install our handler for both signals."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._time = signal.Signals(number), now
            # os.write, not print: the handler may interrupt a print.
            os.write(2, f"{self._signal.name}: stopping after this step; once more to stop at once\n".encode())
        elif now - self._time >= SAME_REQUEST_SECONDS:
            os._exit(128 + number)
