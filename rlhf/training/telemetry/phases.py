"""A clock that splits a step's time into named phases."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

OTHER = "other"
"""Time outside all phases: the loop's own."""
_NOTHING = nullcontext()


class Phases:
    """Adds up seconds by phase: `with phases("forward"): ...`. An inner phase's time does not count for the outer."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        *,
        enabled: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start the clock.

        Args:
            device: where the work is done; both ends of a phase wait for work on a GPU.
            enabled: if False, phases cost nothing and nothing is measured.
            clock: returns seconds.
        """
        self.enabled = enabled
        self._device = torch.device(device)
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._nested: list[float] = []
        self._since = clock()

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """Return a context whose time belongs to the phase `name`."""
        return self._phase(name) if self.enabled else _NOTHING

    def taken(self) -> dict[str, float]:
        """Return the seconds of each phase since the last call, plus the rest as `other`, and start anew.

        Raises:
            ValueError: a phase is still open.
        """
        if self._nested:
            raise ValueError("phases can be taken only when none is open")
        now = self._now()
        seconds, self._seconds = self._seconds, {}
        total, self._since = now - self._since, now
        return {**seconds, OTHER: total - sum(seconds.values())}

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = self._now()
        self._nested.append(0.0)
        try:
            yield
        finally:
            elapsed = self._now() - started
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed - self._nested.pop()
            if self._nested:
                self._nested[-1] += elapsed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()


NO_PHASES = Phases(enabled=False)
"""For callers that measure nothing."""
