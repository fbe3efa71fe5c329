"""What a PPO step hands on: the batch that its updates learn from, each update, and everything together."""

from dataclasses import dataclass

from torch import Tensor

from rlhf.batches import Experience
from rlhf.functional.importance import ImportanceWeights
from rlhf.ppo.rollout import Collected


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One optimizer step, over all processes."""

    means: dict[str, float]
    """The losses of the minibatch, and means over its real tokens, by the names in `SUMS` of `tally.py`."""
    ratio_max: float
    """Largest ratio on this process."""
    ratio_deviation: float
    """Largest |ratio - 1| on this process."""
    stepped: bool
    """False when the minibatch exceeded `target_kl` and no step was taken."""
    optimizer: dict[str, float]
    """Learning rates and gradient norms."""
    ratios: list[tuple[Tensor, Tensor]]
    """Of each microbatch on this process: its rows [N], and the ratios of their real tokens in row order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """What the updates of a PPO step learn from."""

    collected: Collected
    experience: Experience
    kl_coef: float
    """The coefficient that shaped the rewards."""
    correction: ImportanceWeights | None = None
    """By which the advantages were multiplied, for an engine that computes in its own way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult(StepBatch):
    """Everything that one PPO step produced."""

    updates: list[Update]
