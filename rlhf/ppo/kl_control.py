"""The coefficient of the KL penalty: fixed, or steered towards a target."""

from rlhf.config.ppo import KLSection


class KLControl:
    """Holds the coefficient.

    Adaptive: coef <- coef * (1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon), kl in nats per sequence.

    Source: Ziegler et al. 2019, arXiv:1909.08593, section 2.2.
    """

    def __init__(self, kl_coef: float, settings: KLSection) -> None:
        """Start at `kl_coef`; a fixed controller stays there."""
        self.coef = kl_coef
        self._settings = settings

    def update(self, sequence_kl: float, num_episodes: int) -> None:
        """Adapt the coefficient to the measured KL: summed over a sequence, averaged over episodes, never per token."""
        if self._settings.controller == "adaptive":
            error = min(max(sequence_kl / self._settings.target - 1.0, -0.2), 0.2)
            self.coef *= 1.0 + error * num_episodes / self._settings.horizon
