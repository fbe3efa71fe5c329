"""Every formula is broken on purpose, one at a time, and the proofs named beside it must notice.

A mutation replaces text in the source of one function and swaps the compiled code of that function in place, so that
whoever has imported it runs the broken one. Text that is no longer there fails the test: the list moves with the code.
"""

import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

from rlhf.functional import advantages, groups, kl, logprobs, losses, masking
from rlhf.ppo import experience, kl_control, ladder
from rlhf.ppo.trainer import PPO


def proofs_of(name: str) -> ModuleType:
    """The proofs of the test module beside this one."""
    spec = importlib.util.spec_from_file_location(f"oracle_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


FORMULAS, DIVERGENCE, STAGE = proofs_of("test_expectation"), proofs_of("test_kl"), proofs_of("test_ppo_stage")

UNBIASED = FORMULAS.test_the_whole_return_and_the_reward_to_go_are_unbiased
BASELINE = FORMULAS.test_a_baseline_of_the_state_leaves_the_expected_gradient_unchanged
LAMBDA_1 = FORMULAS.test_gae_with_lambda_1_is_unbiased_for_any_critic_and_every_lambda_for_the_exact_one
BIAS = FORMULAS.test_the_bias_of_gae_with_a_wrong_critic_is_what_theory_says
DISCOUNT = FORMULAS.test_under_a_discount_the_whole_return_is_unbiased_and_the_reward_to_go_lacks_its_factor
RLOO = FORMULAS.test_rloo_is_unbiased
GROUP = FORMULAS.test_two_normalised_samples_climb_the_probability_of_beating_oneself
AT_OLD = FORMULAS.test_at_the_old_policy_the_gradients_of_all_objectives_are_the_policy_gradient
AWAY = FORMULAS.test_away_from_the_old_policy_the_objectives_are_expectations_in_old_states
CLIP = FORMULAS.test_clip_and_min_stop_exactly_the_updates_that_have_gone_far_enough
REGULARISED = FORMULAS.test_k1_in_the_rewards_gives_the_gradient_of_the_regularised_objective
K3_IN_REWARDS = FORMULAS.test_k3_in_the_rewards_misses_the_gradient_by_that_of_the_reverse_kl
VALUE = FORMULAS.test_the_value_loss_rests_at_the_exact_values
VALUE_CLIP = FORMULAS.test_the_value_clip_holds_a_value_that_has_moved_far_enough_and_no_other
MICROBATCHES = FORMULAS.test_microbatches_add_up_to_the_expected_gradient
MEANS = FORMULAS.test_whitened_advantages_have_mean_0_and_variance_1_and_means_leave_out_padding
K1_K3 = DIVERGENCE.test_k1_and_k3_are_unbiased
K2 = DIVERGENCE.test_k2_is_biased_by_a_sixth_of_the_third_moment_of_a_small_log_ratio
EXACT_KL = DIVERGENCE.test_the_sum_over_the_vocabulary_at_sampled_states_is_unbiased
LOGPROBS = DIVERGENCE.test_logprobs_and_entropy_are_those_of_the_distribution_that_samples
UPDATE = STAGE.test_an_update_follows_the_exact_gradient_of_reward_less_kl_however_it_is_cut
RESETS = STAGE.test_with_resets_an_update_follows_the_exact_gradient_of_the_objective_from_those_starts
ROLL_IN = STAGE.test_with_resets_the_value_loss_reads_no_forced_token
TWO_PROCESSES = STAGE.test_two_processes_have_the_gradient_of_one
WHITEN_BOTH = STAGE.test_two_processes_whiten_over_the_batch_of_both
RETURNS = STAGE.test_returns_are_taken_before_whitening_and_are_targets_of_the_exact_values
SEQUENCE_KL = STAGE.test_the_sequence_kl_is_the_exact_kl_and_holds_an_adaptive_coefficient_at_its_target
PADDING = STAGE.test_padding_enters_no_mean_of_an_update
ENTROPY = STAGE.test_the_entropy_bonus_pushes_towards_entropy


@dataclass(frozen=True)
class Mutation:
    """One way to break one function."""

    name: str
    function: FunctionType
    replaced: dict[str, str]
    noticed_by: tuple[FunctionType, ...]


MUTATIONS = [
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
        (REGULARISED, UPDATE, RESETS),
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
        {
            "rollout.response_ids, mask, rollout.forced)": "rollout.response_ids, mask | rollout.forced)",
            "experience.returns, mask,": "experience.returns, mask | rollout.forced,",
        },
        (ROLL_IN,),
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
        (REGULARISED, UPDATE, RESETS),
    ),
    Mutation(
        "the whole return is a mean over the tokens",
        advantages.trajectory_return,
        {"keep(response_return(": "keep(1 / mask.sum(1, keepdim=True) * response_return("},
        (UNBIASED, UPDATE),
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
        (BIAS,),
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
        (RLOO,),
    ),
    Mutation(
        "RLOO takes the rows of a prompt to stand apart",
        groups._grouped,
        {"view(-1, num_samples)": "view(num_samples, -1).T"},
        (RLOO, GROUP),
    ),
    Mutation(
        "group normalisation forgets the spread",
        groups.group_normalised,
        {"centred * torch.rsqrt(": "centred + 0 * torch.rsqrt("},
        (GROUP,),
    ),
    Mutation(
        "the configured estimator is not the one that runs",
        ladder.estimated_advantages,
        {"return reward_to_go(": "return -reward_to_go("},
        (UPDATE,),
    ),
    # Objectives.
    Mutation(
        "the policy gradient descends",
        losses.policy_gradient_loss,
        {"loss = -(": "loss = ("},
        (UNBIASED, AT_OLD, UPDATE),
    ),
    Mutation(
        "the larger of the two products is taken",
        losses.policy_loss,
        {"torch.maximum": "torch.minimum"},
        (CLIP, AWAY),
    ),
    Mutation(
        "the clip stands alone, without the min",
        losses.policy_loss,
        {"torch.maximum(unclipped, clipped).sum()": "clipped.sum()"},
        (CLIP, AWAY),
    ),
    Mutation(
        "the ratio is clipped from above alone",
        losses.policy_loss,
        {"ratio.clamp(1.0 - clip_range, 1.0 + clip_range)": "ratio.clamp(max=1.0 + clip_range)"},
        (CLIP, AWAY),
    ),
    Mutation(
        "the ratio is upside down",
        losses.policy_loss,
        {"as_float(logprobs) - as_float(old_logprobs)": "as_float(old_logprobs) - as_float(logprobs)"},
        (AT_OLD, CLIP, AWAY, UPDATE),
    ),
    Mutation(
        "the log-ratio stands for the ratio",
        losses.policy_loss,
        {"ratio = log_ratio.exp()": "ratio = 1.0 + log_ratio"},
        (CLIP, AWAY),
    ),
    # KL.
    Mutation(
        "k1 is upside down",
        kl.kl_estimate,
        {"return difference\n": "return -difference\n"},
        (K1_K3, REGULARISED, UPDATE),
    ),
    Mutation("k2 is not halved", kl.kl_estimate, {"0.5 * difference": "1.0 * difference"}, (K2,)),
    Mutation(
        "k3 takes the ratio the wrong way round",
        kl.kl_estimate,
        {"torch.expm1(-difference) + difference": "torch.expm1(difference) - difference"},
        (K1_K3, K3_IN_REWARDS),
    ),
    Mutation(
        "the exact KL is the reverse one",
        kl.exact_kl,
        {"(log_p.exp() *": "-(log_q.exp() *"},
        (EXACT_KL, K1_K3, SEQUENCE_KL),
    ),
    Mutation(
        "logprobs multiply by the temperature",
        logprobs._at_temperature,
        {"floats / temperature": "floats * temperature"},
        (LOGPROBS,),
    ),
    Mutation(
        "entropy has the wrong sign",
        logprobs.entropy,
        {"- (scaled.softmax": "+ (scaled.softmax"},
        (LOGPROBS,),
    ),
    # Values, returns, control.
    Mutation(
        "the value loss takes the smaller error",
        losses.value_loss,
        {"torch.maximum": "torch.minimum"},
        (VALUE_CLIP,),
    ),
    Mutation(
        "the value loss is not halved",
        losses.value_loss,
        {"loss = 0.5 *": "loss = 1.0 *"},
        (VALUE, VALUE_CLIP),
    ),
    Mutation(
        "the value loss regresses on the old values",
        losses.value_loss,
        {"unclipped = (values - returns)": "unclipped = (values - old_values)"},
        (VALUE, VALUE_CLIP),
    ),
    Mutation(
        "returns are taken after whitening",
        experience.make_experience,
        {
            "    returns = keep(advantages + rollout.values, mask)\n": "",
            "    return Experience(": "    returns = keep(advantages + rollout.values, mask)\n    return Experience(",
        },
        (RETURNS,),
    ),
    Mutation(
        "the adaptive coefficient runs away from its target",
        kl_control.KLControl.update,
        {"1.0 + error": "1.0 - error"},
        (SEQUENCE_KL,),
    ),
    Mutation(
        "the adaptive coefficient leaps",
        kl_control.KLControl.update,
        {"-0.2), 0.2)": "-0.2), 20.0)"},
        (SEQUENCE_KL,),
    ),
    Mutation(
        "the entropy bonus is a penalty",
        PPO.loss,
        {"- config.entropy_coef": "+ config.entropy_coef"},
        (ENTROPY,),
    ),
    Mutation(
        "forced tokens are not read",
        PPO.loss,
        {"rollout.forced)": "torch.zeros_like(rollout.forced))"},
        (RESETS,),
    ),
]  # fmt: skip


def broken(function: FunctionType, replaced: dict[str, str]) -> CodeType:
    """Compile the function with its text replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in replaced.items():
        found = source.count(textwrap.dedent(old) if old.startswith("\n") else old)
        assert found == 1, f"{function.__qualname__} holds {old!r} {found} times: move the mutation with the code"
        source = source.replace(old, new)
    namespace = dict(inspect.unwrap(function).__globals__)
    exec(compile(source, f"<{function.__qualname__}, broken>", "exec"), namespace)
    code: CodeType = inspect.unwrap(namespace[function.__name__]).__code__
    return code


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """Run the broken code wherever the function was imported, and the sound code afterwards."""
    function = inspect.unwrap(mutation.function)
    sound = function.__code__
    function.__code__ = broken(mutation.function, mutation.replaced)
    try:
        yield
    finally:
        function.__code__ = sound


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_formula_is_noticed(mutation: Mutation) -> None:
    for proof in mutation.noticed_by:
        with mutated(mutation), pytest.raises((AssertionError, RuntimeError, ValueError, IndexError)):
            proof()


def test_after_a_mutation_the_sound_formula_is_back() -> None:
    with mutated(MUTATIONS[0]), pytest.raises(AssertionError):
        MEANS()
    MEANS()


def test_every_proof_notices_something() -> None:
    """A proof that no mutation can fail proves nothing."""
    used = {proof.__name__ for mutation in MUTATIONS for proof in mutation.noticed_by}
    idle = {
        "test_the_exact_advantage_has_the_exact_gradient",  # of the oracle itself
        "test_k3_is_never_negative_and_k1_is",
    }
    everything = {name for module in (FORMULAS, DIVERGENCE, STAGE) for name in vars(module) if name.startswith("test_")}
    assert everything - used == idle
