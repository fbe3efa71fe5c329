"""Calls that must answer in time: they run in a thread of their own, which is left behind when it does not answer.

What remains impossible: Python cannot end a thread. The call that hangs goes on until it returns or the process ends;
it does not keep the process from ending. Native code that never gives back the interpreter lock (a catastrophic pattern
of `re`, for one) stops every thread, the one that looks at the clock included.
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
    """One thread, which does all calls one after the other; it is started by the first."""

    def __init__(self, name: str) -> None:
        """Name the thread."""
        self._name = name
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], T], seconds: float) -> T:
        """Return what `call` returns, or raise what it raises.

        A call before it that still hangs is waited for within the same time: two never run at once.

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
        # Both belong to a thread: the device that the launcher gave to this process, and that nothing is learned here.
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
    except BaseException as error:  # raised again where the answer is waited for
        return False, error
