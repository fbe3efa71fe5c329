"""Calls with a deadline: they run in a thread of their own, and the caller gives up on one that is late.

What remains impossible: Python cannot kill a thread. A call that hangs runs until it returns or the process ends, and
does not keep the process from ending. Native code that never releases the GIL (catastrophic backtracking in `re`, for
one) stops every thread, including the one that watches the clock.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

T = TypeVar("T")


class NoAnswer(Exception):
    """A call did not return in time."""


@dataclass(slots=True)
class _Task:
    call: Callable[[], object]
    answer: "queue.SimpleQueue[tuple[bool, object]]" = field(default_factory=queue.SimpleQueue)
    is_given_up: bool = False


class Worker:
    """One thread that runs all calls one after the other; the first call starts it."""

    def __init__(self, name: str) -> None:
        """Name the thread."""
        self._name = name
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], T], seconds: float) -> T:
        """Return what `call` returns, or raise what it raises.

        If an earlier call still hangs, waiting for it counts against `seconds`: two never run at once.

        Raises:
            NoAnswer: none came within `seconds`.
        """
        if self._thread is None:
            device = torch.cuda.current_device() if torch.cuda.is_available() else None
            # A daemon: the process may end while it hangs.
            self._thread = threading.Thread(target=self._work, args=(device,), name=self._name, daemon=True)
            self._thread.start()
        task = _Task(call)
        self._tasks.put(task)
        try:
            is_result, answer = task.answer.get(timeout=seconds)
        except queue.Empty:
            task.is_given_up = True
            raise NoAnswer(f"no answer within {seconds:g} s") from None
        if not is_result:
            assert isinstance(answer, BaseException)
            raise answer
        return answer  # type: ignore[return-value]  # what `call` returned

    def _work(self, device: int | None) -> None:
        # Both are settings of a thread: the GPU that the launcher gave to this process, and no_grad.
        if device is not None:
            torch.cuda.set_device(device)
        with torch.no_grad():
            while True:
                task = self._tasks.get()
                if not task.is_given_up:
                    task.answer.put(_outcome(task.call))


def _outcome(call: Callable[[], object]) -> tuple[bool, object]:
    try:
        return True, call()
    except BaseException as error:  # raised again in the waiting thread
        return False, error
