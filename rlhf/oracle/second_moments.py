"""The exact second moment of a gradient estimate in the simplest long episode: the lecture's H^3, H^3 / 3 and H.

An episode has H steps. Each brings a reward of 1 plus noise e_t of mean 0 and variance n, independent of all else,
and has a score s_t = grad log pi(a_t | s_t) of mean 0 and second moment 1, independent of the other steps and of the
rewards. The estimate is g = sum_t s_t Psi_t. Its expectation is 0, since no action changes a reward. As Psi is
independent of the scores, cross terms vanish, E[s_t s_u] = 0, and the second moment, which here is the variance, is

    E[g^2] = sum_t E[Psi_t^2].

The rungs differ only in Psi. With K = H - t the number of steps from t to the end, K runs through 1 ... H.
"""


def whole_trajectory(horizon: int, noise: float = 0.0) -> float:
    """Return E[g^2] with Psi_t = R, the return of the episode.

    R = H + sum of H noises, E[R^2] = H^2 + n H, at each of H steps: H^3 + n H^2.
    """
    return horizon**3 + noise * horizon**2


def reward_to_go(horizon: int, noise: float = 0.0) -> float:
    """Return E[g^2] with Psi_t = G_t, the reward to go.

    G_t = K + sum of K noises, E[G_t^2] = K^2 + n K. Summed over K = 1 ... H: H(H + 1)(2H + 1) / 6 + n H(H + 1) / 2,
    a third of the whole trajectory's for large H.
    """
    return horizon * (horizon + 1) * (2 * horizon + 1) / 6 + noise * horizon * (horizon + 1) / 2


def baseline(horizon: int, noise: float = 1.0) -> float:
    """Return E[g^2] with Psi_t = G_t - V_t, V exact.

    V_t = K subtracts the certain part and leaves K noises, E = n K. Summed: n H(H + 1) / 2, which grows as H^2: the
    noise of the whole future is still in it.
    """
    return noise * horizon * (horizon + 1) / 2


def gae(horizon: int, gae_lambda: float, noise: float = 1.0) -> float:
    """Return E[g^2] with Psi_t = GAE, V exact, no discount.

    A TD error is r_t + V_{t+1} - V_t = 1 + e_t + (K - 1) - K = e_t, so Psi_t = sum_{k < K} lambda^k e_{t+k} and
    E[Psi_t^2] = n sum_{k < K} lambda^{2k}. Summed: n H for lambda 0, the lecture's H; at most n H / (1 - lambda^2) for
    lambda below 1, so that it grows as H once H is beyond 1 / (1 - lambda); `baseline` for lambda 1.
    """
    # e_{t+k} with a given k appears at the H - k steps t that have it before the end.
    return noise * sum((horizon - k) * gae_lambda ** (2 * k) for k in range(horizon))
