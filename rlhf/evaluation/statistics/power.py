"""The smallest effect that a number of prompts can show."""

import math
from statistics import NormalDist

LARGEST_SPREAD = 0.5
"""Standard deviation of a preference in {0, 1} that is won half of the time: a tie makes it smaller."""


def smallest_effect(
    num_prompts: int, *, spread: float = LARGEST_SPREAD, power: float = 0.8, significance: float = 0.05
) -> float:
    """Return the distance of a win rate from 1/2 that a two-sided test finds with a probability of `power`.

        effect = (z(1 - significance / 2) + z(power)) * spread / sqrt(num_prompts)

    where z is the quantile of the standard normal distribution. Source: Lachin 1981, "Introduction to sample size
    determination and power analysis for clinical trials", solved for the effect.

    Args:
        num_prompts: independent comparisons; several answers to one prompt count once.
        spread: standard deviation of the preference of a prompt; the default is the largest there is at 1/2.
        power: probability that a true effect of this size is found.
        significance: probability that an effect is found where there is none.

    Returns:
        A difference of shares; 0.1 means that 60 % is told from 50 %. It may exceed 1/2: then no effect can be shown.

    Raises:
        ValueError: an argument is out of its range.
    """
    if num_prompts < 1 or spread < 0 or not 0 < power < 1 or not 0 < significance < 1:
        raise ValueError(
            f"expected num_prompts >= 1, spread >= 0, power and significance in (0, 1), found {num_prompts}, {spread}, "
            f"{power}, {significance}"
        )
    normal = NormalDist()
    return (normal.inv_cdf(1 - significance / 2) + normal.inv_cdf(power)) * spread / math.sqrt(num_prompts)
