"""`rlhf doctor`: assembles a PPO run as it would begin, examines it, and writes nothing.

Left out: several processes, and compiled blocks, which would take longer than everything else here.
"""

import time
from collections.abc import Iterator

from rlhf.config import PPOConfig
from rlhf.doctor.exploration import rewards_are_met
from rlhf.doctor.finding import Finding
from rlhf.doctor.memory import memory_suffices
from rlhf.doctor.peculiarities import decoding_is_plain, factors_are_steady
from rlhf.doctor.rewards import same_score, scale_fits
from rlhf.doctor.sampler import sampler_agrees
from rlhf.doctor.start import critic_is_finite, dropout_is_off, kl_is_zero, ratio_is_one, responses_end
from rlhf.doctor.tokens import pad_is_not_eos, template_is_prefix, tokenizers_agree
from rlhf.doctor.trial import run_trial
from rlhf.doctor.verdicts import each_verdict
from rlhf.errors import GuardStop
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.run.stage import assemble_alone
from rlhf.training.telemetry.memory import available_memory_bytes


def examine(config: PPOConfig) -> None:
    """Print a line for each check of a PPO run.

    Raises:
        ConfigError: the config cannot be run, or there are several processes.
        DataError: the prompts cannot be read.
        RewardError: a reward failed.
        GuardStop: a check fails, or the policy's logits are not finite.
    """
    started = time.perf_counter()
    parts = assembled(config)
    findings: list[Finding] = []
    try:
        for finding in checked(parts):
            parts.trainer.processes.say(finding.line)
            findings.append(finding)
    finally:
        parts.trainer.collector.scorer.close()
    failing = [finding.name for finding in findings if finding.state == "failing"]
    counts = {state: sum(finding.state == state for finding in findings) for state in ("ok", "warning", "failing")}
    summary = ", ".join(f"{count} {state}" for state, count in counts.items())
    parts.trainer.processes.say(f"{len(findings)} checks: {summary}; {time.perf_counter() - started:.0f} s")
    if failing:
        raise GuardStop(f"doctor: failing: {', '.join(failing)} - the lines above give causes and fixes")


def assembled(config: PPOConfig) -> PPORun:
    """Put a run together as `rlhf ppo` does, in one process and without a run directory.

    Raises:
        RlhfError: bad config, data, model or reward.
    """
    return assemble_alone(config, "doctor examines one process")


def checked(parts: PPORun) -> Iterator[Finding]:
    """Yield each finding as soon as it is made; skip what would only repeat an earlier failure."""
    available = available_memory_bytes(parts.trainer.processes.device)
    yield pad_is_not_eos(parts)
    yield tokenizers_agree(parts)
    yield from factors_are_steady(parts)
    yield from decoding_is_plain(parts)
    dropout = dropout_is_off(parts)
    yield dropout
    if dropout.state == "failing":
        yield Finding("first step", "skipped", "nothing was sampled", "with dropout all numbers would be noise")
        return
    yield sampler_agrees(parts)
    trial = run_trial(parts)
    yield template_is_prefix(parts, trial.collected.episodes)
    yield ratio_is_one(parts, trial)
    yield kl_is_zero(parts, trial)
    yield critic_is_finite(parts, trial)
    yield responses_end(parts, trial)
    verdicts = each_verdict(parts, trial)
    yield from same_score(verdicts, trial)
    yield scale_fits(parts, trial)
    yield from rewards_are_met(parts, trial, verdicts)
    yield memory_suffices(parts, trial, available)
