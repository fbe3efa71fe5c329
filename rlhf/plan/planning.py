"""The verb `rlhf plan`: its tables, printed."""

from rlhf.config import PPOConfig
from rlhf.errors import ConfigError
from rlhf.evaluation.table import Cell, text_table
from rlhf.forecast.models import PPOModels, ppo_models
from rlhf.forecast.origin import Unknown
from rlhf.plan.hardware import GIB
from rlhf.plan.models import models_of_shape
from rlhf.plan.options import PlanOptions
from rlhf.plan.outcome import Lengths, Planned, planned
from rlhf.plan.setups import setups_of, tunings_of
from rlhf.plan.sizes import Sizes
from rlhf.printable import printable

GENERATES = 0.8
"""Share of a step from which on decoding is named as what to change."""


def plan(options: PlanOptions) -> None:
    """Print what each way of running the configuration takes.

    Raises:
        ConfigError: a model of the configuration is not on this machine.
    """
    config, hardware = options.config, options.hardware
    lengths = Lengths(
        prompt=options.prompt_tokens or config.prompts.max_length,
        response=options.response_tokens or config.sampling.max_new_tokens,
    )
    configs = tunings_of(config)
    models = {tuning: _models(tuned, options) for tuning, tuned in configs.items()}
    rows = [
        planned(tuned, models[tuning], setup, lengths, hardware)
        for tuning, tuned in configs.items()
        for setup in setups_of(tuning, tuned, hardware.num)
    ]
    print(printable("\n".join(_lines(options, lengths, models[""], rows))))


def _models(config: PPOConfig, options: PlanOptions) -> PPOModels:
    if options.shape is not None:
        return models_of_shape(config, options.shape)
    try:
        return ppo_models(config, options.recipe)
    except Unknown as problem:
        raise ConfigError(f"plan: {problem} - name the shape of its models, as in --shape llama-3.1-8b") from None


def _lines(options: PlanOptions, lengths: Lengths, models: PPOModels, rows: list[Planned]) -> list[str]:
    hardware, policy = options.hardware, Sizes.of(models.lm)
    found = [
        f"{hardware.num} x {hardware.name}: {_billions(policy.weights)} weights in the policy, "
        f"{_billions(policy.trained)} trained; {len(models.rewards)} reward model(s)"
        + ("" if models.critic is None else "; a separate critic"),
        f"{options.config.rollout_batch_size} episodes a step, each of {lengths.prompt} + {lengths.response} tokens",
        "GiB of a device while it samples and while it learns; seconds of a step and of its parts (sync: between "
        "devices); device-hours for 1,000 episodes",
        "",
        text_table(_header(options), [_row(row, options) for row in rows], digits=2),
        "",
        *_remedies(rows),
    ]
    best = min((row for row in rows if row.fits), key=lambda row: row.times.total, default=None)
    found.append(_advice(best))
    found.append(
        "Arithmetic on data sheets: nothing here was run on such a device (docs/plan.md says how it is counted)."
    )
    return found


def _remedies(rows: list[Planned]) -> list[str]:
    """Return what makes each way fit, once for those that need the same."""
    needed = dict.fromkeys(row.remedy for row in rows if row.remedy)
    return [f"{', '.join(row.setup.name for row in rows if row.remedy == each)}: {each}" for each in needed]


def _header(options: PlanOptions) -> list[str]:
    price = [] if options.price is None else ["cost"]
    return ["setup", "sample", "learn", "fits", "step", "generate", "score", "train", "sync", "hours", *price]


def _row(row: Planned, options: PlanOptions) -> list[Cell]:
    times = row.times
    cells: list[Cell] = [row.setup.name, row.memory.rollout / GIB, row.memory.update / GIB]
    cells += ["yes" if row.fits else "no", times.total]
    cells += [times.generation, times.scoring, times.training, times.communication, row.device_hours]
    return cells if options.price is None else [*cells, row.device_hours * options.price]


def _advice(best: Planned | None) -> str:
    if best is None:
        return (
            "None of these fits. Its place is a stack that spreads one model's layers and its decoding over devices "
            "(tensor and pipeline parallel: OpenRLHF, verl)."
        )
    share = best.times.generation / best.times.total
    if share >= GENERATES:
        return (
            f"Fastest that fits: {best.setup.name}. Decoding takes {share:.0%} of its step: an engine on devices "
            "of its own, or a stack that overlaps sampling and training (OpenRLHF, verl), would pay most."
        )
    return f"Fastest that fits: {best.setup.name}."


def _billions(number: int) -> str:
    return f"{number / 1e9:.2f}e9" if number >= 1e7 else f"{number / 1e6:.2f}e6"
