"""How far the best of n answers is from the policy that gave them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def kl_bound(n: int) -> float:
    """Return log n - (n - 1) / n, in nats: the most that the best of n answers is from the policy.

    It is reached where no two answers are alike. Source: Beirami et al. 2024, arXiv:2401.01879.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, found {n}")
    return float(np.log(n) - (n - 1) / n)


def kl_of_winners(logprobs: ArrayLike, n: int) -> Floats:
    """Return a tighter estimate of that KL for each winner, from the policy's probability of it.

    A winner of probability e that nothing beats is drawn with probability 1 - (1 - e)^n; the rest of the distribution
    is taken to have no answer that is drawn twice. With a = 1 - e the KL is then

        a^n (log n + (n - 1) log a - (n - 1) / n) + (1 - a^n) log((1 - a^n) / e)

    For small e it is the bound; for e = 1 it is 0. It is exact for such distributions, and an estimate for others.
    Source: Beirami et al. 2024, arXiv:2401.01879.

    Args:
        logprobs: [N] log probability of each winner under the policy, given its prompt, in nats.
        n: answers that it was chosen from.
    """
    bound = kl_bound(n)
    e = np.exp(np.minimum(np.asarray(logprobs, dtype=np.float64), 0.0))
    found = np.full(e.shape, bound)
    large = e > 1e-9  # below, 1 - e is rounded, and the bound is exact to nine digits
    found[e >= 1] = 0.0
    inner = large & (e < 1)
    a = 1 - e[inner]
    lost = a**n
    found[inner] = lost * (np.log(n) + (n - 1) * np.log(a) - (n - 1) / n) + (1 - lost) * np.log((1 - lost) / e[inner])
    return found
