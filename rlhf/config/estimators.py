"""The advantage estimators that `advantage:` names, one line each; `rlhf/ppo/experience.py` calls them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimator:
    """A function of rewards, mask and gamma that returns advantages [B, T], not whitened."""

    function: str
    """`module:name`, imported when it is called: reading a configuration needs no torch."""
    reads: tuple[str, ...] = ()
    """Further arguments that it takes: `values`, `gae_lambda`, `num_samples`."""

    @property
    def has_critic(self) -> bool:
        """Whether it reads values, so that there is a value head to train."""
        return "values" in self.reads

    @property
    def compares_samples(self) -> bool:
        """Whether it compares the responses to one prompt, and needs all of them."""
        return "num_samples" in self.reads


ESTIMATORS = {
    "trajectory": Estimator("rlhf.functional.advantages:trajectory_return"),
    "reward_to_go": Estimator("rlhf.functional.advantages:reward_to_go"),
    "baseline": Estimator("rlhf.functional.advantages:baseline", ("values",)),
    "gae": Estimator("rlhf.functional.advantages:gae", ("values", "gae_lambda")),
    "rloo": Estimator("rlhf.functional.groups:rloo", ("num_samples",)),
    "group": Estimator("rlhf.functional.groups:group_normalised", ("num_samples",)),
}
