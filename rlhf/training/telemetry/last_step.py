"""What a stage tells about its last step besides metrics: tokens, and samples for people to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

TOKENS_PER_SECOND = "tokens/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastStep:
    """What one step went through."""

    tokens: float = 0.0
    """Read and sampled, over all processes; 0 where nobody counted."""
    samples: Sequence[Mapping[str, Any]] = ()
    """Rows with `prompt` and `response`, as they stand in samples/; empty after most steps."""

    def figures(self, metrics: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
        """Return the named metrics that there are, and the tokens of a second."""
        found = {name: metrics[name] for name in names if name in metrics}
        if self.tokens and metrics.get("seconds", 0.0) > 0:
            found[TOKENS_PER_SECOND] = self.tokens / metrics["seconds"]
        return found


@runtime_checkable
class Telling(Protocol):
    """Steps that can tell."""

    def last(self) -> LastStep:
        """Return what the last step went through."""


def last_of(steps: object) -> LastStep:
    """Return what a stage tells about its last step; nothing where it cannot."""
    return steps.last() if isinstance(steps, Telling) else LastStep()
