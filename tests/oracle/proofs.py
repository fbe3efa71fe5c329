"""What a mutation is, and the proofs that one must fail, by short names."""

from dataclasses import dataclass
from types import FunctionType

import test_ascent as ASCENT
import test_expectation as FORMULAS
import test_kl as DIVERGENCE
import test_objectives as OBJECTIVES
import test_ppo_stage as STAGE
import test_reset_objective as FROM_RESETS
import test_second_moments as MOMENTS

UNBIASED = FORMULAS.test_the_whole_return_and_the_reward_to_go_are_unbiased
BASELINE = FORMULAS.test_a_baseline_of_the_state_leaves_the_expected_gradient_unchanged
LAMBDA_1 = FORMULAS.test_gae_with_lambda_1_is_unbiased_for_any_critic_and_every_lambda_for_the_exact_one
BIAS = FORMULAS.test_the_bias_of_gae_with_a_wrong_critic_is_what_theory_says
DISCOUNT = FORMULAS.test_under_a_discount_the_whole_return_is_unbiased_and_the_reward_to_go_lacks_its_factor
RLOO = FORMULAS.test_rloo_is_unbiased
GROUP = FORMULAS.test_two_normalised_samples_climb_the_probability_of_beating_oneself
AT_OLD = OBJECTIVES.test_at_the_old_policy_the_gradients_of_all_objectives_are_the_policy_gradient
AWAY = OBJECTIVES.test_away_from_the_old_policy_the_objectives_are_expectations_in_old_states
CLIP = OBJECTIVES.test_clip_and_min_stop_exactly_the_updates_that_have_gone_far_enough
REGULARISED = FORMULAS.test_k1_in_the_rewards_gives_the_gradient_of_the_regularised_objective
K3_IN_REWARDS = FORMULAS.test_k3_in_the_rewards_misses_the_gradient_by_that_of_the_reverse_kl
VALUE = OBJECTIVES.test_the_value_loss_rests_at_the_exact_values
VALUE_CLIP = OBJECTIVES.test_the_value_clip_holds_a_value_that_has_moved_far_enough_and_no_other
MICROBATCHES = OBJECTIVES.test_microbatches_add_up_to_the_expected_gradient
MEANS = OBJECTIVES.test_whitened_advantages_have_mean_0_and_variance_1_and_means_leave_out_padding
K1_K3 = DIVERGENCE.test_k1_and_k3_are_unbiased
K2 = DIVERGENCE.test_k2_is_biased_by_a_sixth_of_the_third_moment_of_a_small_log_ratio
EXACT_KL = DIVERGENCE.test_the_sum_over_the_vocabulary_at_sampled_states_is_unbiased
LOGPROBS = DIVERGENCE.test_logprobs_and_entropy_are_those_of_the_distribution_that_samples
UPDATE = STAGE.test_an_update_follows_the_exact_gradient_of_reward_less_kl_however_it_is_cut
RESETS = STAGE.test_with_resets_an_update_follows_the_exact_gradient_of_the_objective_from_those_starts
WHITEN_RESETS = STAGE.test_with_resets_whitening_reads_no_forced_token
ROLL_IN = STAGE.test_with_resets_the_value_loss_reads_no_forced_token
TWO_PROCESSES = STAGE.test_two_processes_have_the_gradient_of_one
WHITEN_BOTH = STAGE.test_two_processes_whiten_over_the_batch_of_both
RETURNS = STAGE.test_returns_are_taken_before_whitening_and_are_targets_of_the_exact_values
SEQUENCE_KL = STAGE.test_the_sequence_kl_is_the_exact_kl_and_holds_an_adaptive_coefficient_at_its_target
PADDING = STAGE.test_padding_enters_no_mean_of_an_update
ENTROPY = STAGE.test_the_entropy_bonus_pushes_towards_entropy
SECOND_MOMENTS = MOMENTS.test_second_moments_are_what_the_derivation_says
LECTURE = MOMENTS.test_the_lectures_numbers
MIXTURE = FROM_RESETS.test_the_starts_are_the_mixture_worked_out_by_hand
RESET_OBJECTIVE = FROM_RESETS.test_the_expected_gradient_is_that_of_the_reset_objective
CONVERGENCE = ASCENT.test_ppo_converges_to_the_best_policy_near_the_reference

MODULES = (FORMULAS, OBJECTIVES, DIVERGENCE, STAGE, MOMENTS, FROM_RESETS, ASCENT)


@dataclass(frozen=True)
class Mutation:
    """One error, and the text of the functions that make it."""

    name: str
    function: FunctionType
    replaced: dict[str, str]
    noticed_by: tuple[FunctionType, ...]
    elsewhere: tuple[tuple[FunctionType, dict[str, str]], ...] = ()
    """Other functions that the same error breaks."""
