"""Checks of the first step: the ratio, the KL, the critic, dropout, and whether responses end."""

import math

from torch import nn

from rlhf.doctor.finding import Finding, graded
from rlhf.doctor.rounding import LARGEST_UNITS, rounding_unit
from rlhf.doctor.trial import Trial
from rlhf.ppo.run.assembly import PPORun

FEW_ENDED = 0.1
"""Below this share of ended responses, ends are too rare to learn from."""


def dropout_is_off(parts: PPORun) -> Finding:
    """No dropout in the policy, the critic or the reference, and none of them in training mode."""
    models = {
        "policy": parts.trainer.policy.lm,
        "reference": parts.trainer.collector.reference.model,
        **({} if parts.critic is None else {"critic": parts.critic.model}),
    }
    training = [name for name, model in models.items() if model.training]
    active = [f"{name} {place}" for name, model in models.items() for place in _dropouts(model)]
    return graded(
        "dropout",
        f"{len(active)} active in {', '.join(models)}",
        failing=f"{', '.join([*training, *active][:3])}: dropout or training mode would add noise to the ratio - call "
        "`switch_off_dropout` on the model, and set its dropout to 0 in config.json"
        if training or active
        else "",
    )


def ratio_is_one(parts: PPORun, trial: Trial) -> Finding:
    """The loss recomputes the rollout's logprobs bit for bit, so the ratio is 1."""
    deviation, limit = trial.ratio_deviation, LARGEST_UNITS * rounding_unit(parts.trainer.policy.lm)
    num_tokens = int(trial.experience.rollout.response_mask.sum())
    return graded(
        "ratio",
        f"largest |ratio - 1| before any update {deviation:.2g} over {num_tokens} tokens",
        failing=f"beyond rounding ({limit:.2g}): the update does not compute what the rollout computed - look for "
        "dropout, a model whose output depends on the batch, or model code that differs in training"
        if not deviation <= limit
        else "",
        warning="it should be 0: passes with and without gradients round differently here" if deviation > 0 else "",
    )


def kl_is_zero(parts: PPORun, trial: Trial) -> Finding:
    """Policy and reference are one model at the start."""
    rollout = trial.experience.rollout
    apart = float((rollout.logprobs - rollout.ref_logprobs).abs().max())
    limit = LARGEST_UNITS * rounding_unit(parts.trainer.policy.lm)
    kl = parts.trainer.sequence_kl(trial.experience)
    return graded(
        "KL",
        f"{kl:.2g} nats per sequence to the reference, logprobs at most {apart:.2g} nats apart",
        failing=f"beyond rounding ({limit:.2g}): the reference differs from the initial policy - look for model "
        "code that changes the model on copying, or an adapter that does not start at 0"
        if not apart <= limit
        else "",
        warning="it should be 0: the two models round differently here" if apart > 0 else "",
    )


def critic_is_finite(parts: PPORun, trial: Trial) -> Finding:
    """Values and their loss are numbers."""
    values = trial.experience.rollout.values[trial.experience.rollout.response_mask]
    largest, loss = float(values.abs().max()), trial.value_loss
    is_finite = bool(values.isfinite().all()) and math.isfinite(loss)
    where = "the critic's model" if parts.critic is not None else "the policy's hidden states"
    return graded(
        "critic",
        f"largest |value| {largest:.3g}, value loss {loss:.3g}",
        failing="" if is_finite else f"not finite: look for NaN or inf in the weights of {where} or the value head",
    )


def responses_end(parts: PPORun, trial: Trial) -> Finding:
    """Some responses of the starting policy end by themselves."""
    config, rollout = parts.trainer.config, trial.experience.rollout
    ended = rollout.ended[rollout.response_mask.any(1)]  # an episode that a reward dropped has no tokens
    share, length = float(ended.float().mean()), config.sampling.max_new_tokens
    tokenizer = parts.trainer.collector.tokenizer
    ends = ", ".join(repr(text) for text in tokenizer.convert_ids_to_tokens(list(parts.trainer.collector.eos_ids)))
    fix = (
        f"raise sampling.max_new_tokens, or finetune the policy on examples that end with one of {ends}; a policy "
        "learns only from what it samples"
    )
    penalty = config.score.missing_eos_penalty
    return graded(
        "end of response",
        f"{share:.0%} of {len(ended)} responses end within {length} tokens",
        failing=f"none ends, so score.missing_eos_penalty ({penalty:g}) hits all alike and teaches nothing - {fix}"
        if share == 0 and penalty > 0
        else "",
        warning=f"few end - {fix}" if share < FEW_ENDED else "",
    )


def _dropouts(model: nn.Module) -> list[str]:
    """Return every dropout rate above 0: of modules, and of attributes that modules pass to functions."""
    found = []
    for name, module in model.named_modules():
        shares = {key: value for key, value in vars(module).items() if "drop" in key and isinstance(value, float)}
        if isinstance(module, nn.Dropout):
            shares["p"] = float(module.p)
        found += [f"{name or 'model'}.{key} = {value:g}" for key, value in shares.items() if value > 0]
    return found
