"""Ways to break the formulas: objectives, KL, values, returns and control."""

from proofs import (
    AT_OLD,
    AWAY,
    CLIP,
    CONVERGENCE,
    ENTROPY,
    EXACT_KL,
    K1_K3,
    K2,
    K3_IN_REWARDS,
    LOGPROBS,
    REGULARISED,
    RESET_OBJECTIVE,
    RESETS,
    RETURNS,
    ROLL_IN,
    SEQUENCE_KL,
    UNBIASED,
    UPDATE,
    VALUE,
    VALUE_CLIP,
    Mutation,
)
from rlhf.batches import Rollout
from rlhf.functional import kl, logprobs, losses
from rlhf.ppo import experience, kl_control
from rlhf.ppo.trainer import PPO

OBJECTIVES = [
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
        (CLIP, AWAY, CONVERGENCE),
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
        (K1_K3, REGULARISED, UPDATE, RESET_OBJECTIVE),
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
        "other tokens are read than were forced",
        Rollout.sequences,
        {"self.response_ids,": "self.response_ids.masked_fill(self.forced, 0),"},
        (RESETS, ROLL_IN),
    ),
]  # fmt: skip
