"""The learning rate over a run, as a factor of its peak."""

import math
from typing import Literal


def learning_rate_factor(
    step: int, num_steps: int, warmup_fraction: float, shape: Literal["cosine", "linear", "constant"]
) -> float:
    """Return the factor for the update with index `step` (0-based) of `num_steps`.

    It rises linearly over the first `warmup_fraction` of the updates and then falls to 0 along the shape. Both the
    first and the last update have a factor above 0: no update is wasted.
    """
    warmup = math.ceil(round(warmup_fraction * num_steps, 6))  # 0.07 * 100 is 7.000000000000001
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if shape == "constant":
        return 1.0
    progress = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
    return 1.0 - progress if shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
