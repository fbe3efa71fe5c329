"""What `rlhf evaluate --frontier` measured along a PPO run, as its frontier.json tells it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from rlhf.errors import CheckpointError
from rlhf.report.reading.files import json_object
from rlhf.report.reading.metrics import Floats

DIRECTORY, FILE = "frontier", "frontier.json"
Kind = Literal["ppo", "best_of"]
Judge = Literal["proxy", "gold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def shown(self) -> str:
        """The numbers, as `0.52 [0.41, 0.63]`."""
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A policy, or a best of n: its KL to the start in nats, and its gains in standard deviations."""

    kind: Kind
    name: str
    kl: float
    proxy: Estimate
    gold: Estimate

    @property
    def distance(self) -> float:
        """The root of the KL; 0 where an estimate is below 0."""
        return float(max(self.kl, 0.0) ** 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A fitted law of over-optimisation (Gao et al. 2022, arXiv:2210.10760)."""

    kind: Kind
    alpha: Estimate
    beta: Estimate
    turnover_kl: float | None

    def gain(self, distances: Floats) -> Floats:
        """Return the gain at d = sqrt(KL): d (alpha - beta d) of a best of n, d (alpha - beta log d) of PPO."""
        term = distances if self.kind == "best_of" else np.log(np.maximum(distances, 1e-12))
        return np.asarray(distances * (self.alpha.mean - self.beta.mean * term))


@dataclass(frozen=True, slots=True, kw_only=True)
class Disputed:
    """An answer that the proxy likes far better than the gold judge does; scores in standard deviations."""

    policy: str
    prompt: str
    response: str
    proxy: float
    gold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The whole of a frontier.json."""

    gold_judge: str
    num_prompts: int
    points: list[Point]
    laws: Mapping[Kind, Mapping[Judge, Law | None]]
    best: str
    disputed: list[Disputed]


_FORM = TypeAdapter(Frontier)


def frontier_of(content: Mapping[str, object], name: str) -> Frontier:
    """Return a frontier from the content of its file.

    Raises:
        CheckpointError: it has another form; the message begins with `name`.
    """
    try:
        return _FORM.validate_python(content)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        more = problem.error_count() - 1
        rest = f" ({more} more like this)" if more else ""
        raise CheckpointError(
            f"{name}: {place}: {first['msg']}{rest} - expected what `rlhf evaluate --frontier` writes; write it again, "
            "or move the file"
        ) from None


def frontiers_in(directory: Path) -> dict[str, Frontier]:
    """Return the frontiers in the directory of a run or of a stage, by the place of their files in it.

    Raises:
        CheckpointError: a file cannot be read, or has another form.
    """
    places = [directory / DIRECTORY / FILE, *sorted(directory.glob(f"*/{DIRECTORY}/{FILE}"))]
    return {
        str(place.parent.relative_to(directory)): frontier_of(json_object(place), str(place))
        for place in places
        if place.is_file()
    }
