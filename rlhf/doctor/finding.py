"""What one check found, and the line that reports it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "failing", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    """What was checked."""
    state: State
    """failing: the run would learn from wrong numbers, or not at all; warning: it might; skipped: not checked."""
    measured: str
    """The numbers."""
    advice: str = ""
    """Cause and fix, or the reason for a skip; empty where all is well."""

    @property
    def line(self) -> str:
        """The finding on one line."""
        advice = f" - {self.advice}" if self.advice else ""
        return f"{self.state:<7}  {self.name}: {self.measured}{advice}"


def graded(name: str, measured: str, *, failing: str = "", warning: str = "") -> Finding:
    """Return a finding that fails with the advice `failing`, else warns with `warning`, else is well."""
    if failing:
        return Finding(name, "failing", measured, failing)
    return Finding(name, "warning", measured, warning) if warning else Finding(name, "ok", measured)
