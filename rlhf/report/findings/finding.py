"""A detector, and what it found in one run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rlhf.report.reading.run import Run

State = Literal["warning", "ok", "skipped"]


@dataclass(frozen=True, slots=True)
class Warned:
    """A detector's sign is there."""

    evidence: str
    """The numbers, as a sentence."""
    first_step: int | None
    """The first step that shows it; None where only the end of the run is known."""


@dataclass(frozen=True, slots=True)
class Fine:
    """The sign is not there."""

    evidence: str


@dataclass(frozen=True, slots=True)
class Lacking:
    """The run did not write what the detector needs, or too little of it."""

    what: str


Result = Warned | Fine | Lacking


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """Looks for one sign."""

    key: str
    """Its name in links."""
    title: str
    """What is wrong where it warns."""
    look: Callable[[Run], Result]
    chart: str
    """The metric, or the part of the page, that shows it."""
    remedy: str
    """What to try first."""
    caveat: str
    """Why the warning may be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a detector said about a run."""

    detector: Detector
    state: State
    text: str
    """The evidence, or what is lacking."""
    first_step: int | None = None


def finding(detector: Detector, run: Run) -> Finding:
    """Let a detector look at a run."""
    match detector.look(run):
        case Warned(evidence, first_step):
            return Finding(detector=detector, state="warning", text=evidence, first_step=first_step)
        case Fine(evidence):
            return Finding(detector=detector, state="ok", text=evidence)
        case Lacking(what):
            return Finding(detector=detector, state="skipped", text=what)
