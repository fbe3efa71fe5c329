"""Output that nobody reads any more does not end a run: `rlhf run ... | head -1` trains on.

Verbs whose results are files go on in silence when standard output closes, fills its disk or loses its terminal, and
end with status 0. For verbs whose result is what they print (`PRINTING`) a reader that is gone is the end: status 141,
as for `yes | head -1`. Nothing on standard error ever ends a command.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

PRINTING = ("generate", "chat", "validate", "doctor", "plan")
"""Verbs whose result is what they print."""


class _Lasting:
    """A stream whose failure to write is no error; from the first one on, it goes nowhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or write nowhere."""
        with self._survived():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if there is anything to flush to."""
        with self._survived():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _survived(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            let_go(self._stream)


def let_go(stream: TextIO) -> None:
    """Make a stream go nowhere: what a library, or the interpreter at its end, still writes there must not fail."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def lasting_output(verb: str | None) -> Iterator[None]:
    """Make the streams of a command last, standard output only where a verb's result is not what it prints."""
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        stdout, stderr = sys.stdout or nowhere, sys.stderr or nowhere  # None where they were closed from the start
        prints = verb is None or verb in PRINTING
        sys.stdout = stdout if prints else cast(TextIO, _Lasting(stdout))
        sys.stderr = cast(TextIO, _Lasting(stderr))
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
