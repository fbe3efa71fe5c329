"""Ways to break the formulas: errors found in other implementations, broken estimators, second moments and starts."""

from proofs import (
    AT_OLD,
    BASELINE,
    BIAS,
    CONVERGENCE,
    DISCOUNT,
    GROUP,
    LAMBDA_1,
    LECTURE,
    MEANS,
    MICROBATCHES,
    MIXTURE,
    PADDING,
    REGULARISED,
    RESET_OBJECTIVE,
    RESETS,
    RLOO,
    ROLL_IN,
    SECOND_MOMENTS,
    SEQUENCE_KL,
    TWO_PROCESSES,
    UNBIASED,
    UPDATE,
    WHITEN_BOTH,
    WHITEN_RESETS,
    Mutation,
)
from rlhf.batches import Rollout
from rlhf.functional import advantages, groups, losses, masking
from rlhf.oracle import second_moments
from rlhf.ppo import experience
from rlhf.ppo.starts.resets import Resets
from rlhf.ppo.trainer import PPO

ROLL_IN_IS_SCORED = (
    Rollout.sequences,
    {"self.response_mask, self.forced)": "self.response_mask | self.forced)"},
)
"""The policy gives logprobs of roll-in tokens as of its own."""

ESTIMATORS = [
    # Errors found in other implementations.
    Mutation(
        "whitening is inverted: the mean stays",
        masking.whiten,
        {"return centred * torch.rsqrt(": "return masked_mean(values, mask) + centred * torch.rsqrt("},
        (MEANS, WHITEN_BOTH),
    ),
    Mutation(
        "the loss is a mean over a microbatch",
        losses._divisor,
        {"if num_tokens is None:": "if True:"},
        (MICROBATCHES, UPDATE, TWO_PROCESSES),
    ),
    Mutation(
        "the update divides by the tokens of the microbatch",
        PPO.update,
        {"rows(rows), num_tokens": "rows(rows), float(experience.rollout.response_mask[rows].sum())"},
        (UPDATE, TWO_PROCESSES),
    ),
    Mutation(
        "padding enters averages",
        masking.masked_mean,
        {"/ mask.sum().clamp(min=1)": "/ mask.numel()"},
        (MEANS, PADDING),
    ),
    Mutation(
        "the score lands one position past EOS",
        advantages.shaped_rewards,
        {"at_last = keep(": "is_last = is_last.roll(1, 1)\n    at_last = keep("},
        (REGULARISED, UPDATE, RESETS, RESET_OBJECTIVE),
    ),
    Mutation(
        "the adaptive coefficient is fed the mean per token",
        PPO.sequence_kl,
        {"response_mask.any(1).sum()": "response_mask.sum()"},
        (SEQUENCE_KL,),
    ),
    Mutation(
        "roll-in tokens enter the value loss",
        PPO.loss,
        {"experience.returns, mask,": "experience.returns, mask | rollout.forced,"},
        (ROLL_IN,),
        elsewhere=(ROLL_IN_IS_SCORED,),
    ),
    Mutation(
        "roll-in tokens enter the policy loss",
        PPO.loss,
        {"experience.advantages, mask,": "experience.advantages, mask | rollout.forced,"},
        (RESETS,),
        elsewhere=(
            ROLL_IN_IS_SCORED,
            (experience.make_experience, {"values, mask, config)": "values, mask | rollout.forced, config)"}),
        ),
    ),
    Mutation(
        "roll-in tokens enter the whitening",
        experience.make_experience,
        {"(advantages, mask, processes)": "(advantages, mask | rollout.forced, processes)"},
        (WHITEN_RESETS,),
    ),
    Mutation(
        "roll-in tokens enter the KL",
        experience.make_experience,
        {
            "config.kl_estimator), mask)": "config.kl_estimator), mask | rollout.forced)",
            "kl, mask, kl_coef)": "kl, mask | rollout.forced, kl_coef)",
        },
        (RESETS, SEQUENCE_KL),
    ),
    Mutation(
        "num_tokens is that of this process alone",
        PPO.update,
        {"num_tokens = self.processes.sums([tokens])[0]": "num_tokens = tokens"},
        (TWO_PROCESSES,),
    ),
    Mutation(
        "whitening sees this process alone",
        experience.whitened_globally,
        {"torch.cat(everyone)": "own.cpu()", "start = sum(": "start = 0 * sum("},
        (WHITEN_BOTH,),
    ),
    # Estimators.
    Mutation(
        "the KL is rewarded",
        advantages.shaped_rewards,
        {"as_float(token_scores) - kl_coef": "as_float(token_scores) + kl_coef"},
        (REGULARISED, UPDATE, RESETS, RESET_OBJECTIVE, CONVERGENCE),
    ),
    Mutation(
        "the whole return is a mean over the tokens",
        advantages.trajectory_return,
        {"keep(response_return(": "keep(1 / mask.sum(1, keepdim=True) * response_return("},
        (UNBIASED, UPDATE, SECOND_MOMENTS),
    ),
    Mutation(
        "the reward to go leaves out the token's own reward",
        advantages.reward_to_go,
        {"        following = kept[:, t] + gamma * following\n        to_go[:, t] = following\n":
         "        to_go[:, t] = gamma * following\n        following = kept[:, t] + gamma * following\n"},
        (UNBIASED, BASELINE, UPDATE),
    ),
    Mutation(
        "the reward to go is the reward so far",
        advantages.reward_to_go,
        {"reversed(range(mask.shape[1]))": "range(mask.shape[1])"},
        (UNBIASED, BASELINE, UPDATE),
    ),
    Mutation(
        "the reward to go is not discounted",
        advantages.reward_to_go,
        {"gamma * following": "following"},
        (DISCOUNT,),
    ),
    Mutation(
        "the baseline is that of the next state",
        advantages.baseline,
        {"- keep(values, mask)": "- keep(values.roll(-1, 1), mask)"},
        (BASELINE, AT_OLD),
    ),
    Mutation(
        "GAE adds the value of the state",
        advantages.gae,
        {"- values[:, t]": "+ values[:, t]"},
        (LAMBDA_1, BIAS),
    ),
    Mutation(
        "GAE forgets the value of the next state",
        advantages.gae,
        {"gamma * next_value - values": "- values"},
        (LAMBDA_1, BIAS),
    ),
    Mutation(
        "GAE squares its decay",
        advantages.gae,
        {"gamma * gae_lambda * next_advantage": "gamma * gae_lambda**2 * next_advantage"},
        (BIAS, SECOND_MOMENTS),
    ),
    Mutation(
        "GAE discounts by lambda alone",
        advantages.gae,
        {"gamma * gae_lambda * next_advantage": "gae_lambda * next_advantage"},
        (DISCOUNT,),
    ),
    Mutation(
        "RLOO counts a response among the others",
        groups.rloo,
        {"(returns.sum(1, keepdim=True) - returns) / (num_samples - 1)": "returns.mean(1, keepdim=True)"},
        (RLOO, UPDATE, RESETS),
    ),
    Mutation(
        "RLOO takes the rows of a prompt to stand apart",
        groups._grouped,
        {"view(-1, num_samples)": "view(num_samples, -1).T"},
        (RLOO, GROUP, RESETS),
    ),
    Mutation(
        "group normalisation forgets the spread",
        groups.group_normalised,
        {"centred * torch.rsqrt(": "centred + 0 * torch.rsqrt("},
        (GROUP,),
    ),
    Mutation(
        "the configured estimator is not the one that runs",
        experience.estimated_advantages,
        {"return advantages": "return -advantages"},
        (UPDATE,),
    ),
    # Second moments.
    Mutation(
        "the whole return is said to scatter as H^2",
        second_moments.whole_trajectory,
        {"horizon**3": "horizon**2"},
        (SECOND_MOMENTS, LECTURE),
    ),
    Mutation(
        "the reward to go is said to scatter half as much as the whole return",
        second_moments.reward_to_go,
        {"/ 6 + noise": "/ 4 + noise"},
        (SECOND_MOMENTS, LECTURE),
    ),
    Mutation(
        "GAE is said to see every TD error from every step",
        second_moments.gae,
        {"sum((horizon - k) *": "sum(horizon *"},
        (SECOND_MOMENTS, LECTURE),
    ),
    # Starts.
    Mutation(
        "a whole demonstration is forced, and nothing left to the policy",
        Resets.__init__,
        {"max_new_tokens - 1": "max_new_tokens"},
        (MIXTURE,),
    ),
]  # fmt: skip
