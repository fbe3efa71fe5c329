"""Which rung of the ladder a configuration stands on: its advantage estimator and its policy objective."""

from torch import Tensor

from rlhf.config import PPOSettings
from rlhf.functional.advantages import baseline, gae, reward_to_go, trajectory_return
from rlhf.functional.groups import group_normalised, rloo
from rlhf.functional.losses import PolicyLoss, policy_gradient_loss, policy_loss


def estimated_advantages(rewards: Tensor, values: Tensor, mask: Tensor, config: PPOSettings) -> Tensor:
    """Return [B, T] what `config.advantage` makes of rewards and values [B, T], not whitened."""
    match config.advantage:
        case "trajectory":
            return trajectory_return(rewards, mask, config.gamma)
        case "reward_to_go":
            return reward_to_go(rewards, mask, config.gamma)
        case "baseline":
            return baseline(rewards, values, mask, config.gamma)
        case "gae":
            return gae(rewards, values, mask, config.gamma, config.gae_lambda)
        case "rloo":
            return rloo(rewards, mask, config.gamma, config.num_samples_per_prompt)
        case "group":
            return group_normalised(rewards, mask, config.gamma, config.num_samples_per_prompt)


def policy_objective(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, config: PPOSettings, num_tokens: float
) -> PolicyLoss:
    """Return the loss of `config.objective`; all tensors [B, T], `num_tokens` of the global minibatch."""
    if config.objective == "policy_gradient":
        return policy_gradient_loss(logprobs, old_logprobs, advantages, mask, num_tokens=num_tokens)
    return policy_loss(logprobs, old_logprobs, advantages, mask, config.clip_range, num_tokens=num_tokens)
