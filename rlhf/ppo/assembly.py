"""Stage: puts the parts of PPO together, runs the steps, saves the policy with its value head."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from rlhf.config import PPOConfig
from rlhf.data.records import Prompt
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.loading import check_positions, load_causal_lm, load_scalar_lm, scalar_head
from rlhf.models.policy import PolicyWithValueHead
from rlhf.models.reference import Reference
from rlhf.models.setup import Trainable
from rlhf.models.tokenizer import eos_ids, load_tokenizer, tokenizer_fingerprint
from rlhf.ppo.reset_assembly import make_resets, reset_inputs
from rlhf.ppo.reward_assembly import components, reward_inputs
from rlhf.ppo.rollout import Collector
from rlhf.ppo.scoring import Scorer
from rlhf.ppo.steps import PPOSteps
from rlhf.ppo.trainer import Generators, PPOTrainer
from rlhf.stage import (
    Frame,
    completed,
    describe_rows,
    export,
    fingerprint,
    frame,
    load_rows,
    optimizer_settings,
    parameters_of,
    trainable,
)
from rlhf.training.optimizer import MasterWeights, Optimizer, ParameterGroup
from rlhf.training.processes import Processes
from rlhf.training.randomness import generator

SHOWN = ("objective/kl", "objective/scores", "policy/clipfrac_avg", "val/explained_variance")


def train_ppo(config: PPOConfig, *, profile: bool = False) -> Path:
    """Optimise the policy against the rewards and save it; `profile` measures where the time goes.

    Returns:
        The directory of the policy, an ordinary `AutoModelForCausalLM` (or adapter) directory with
        `value_head.safetensors` beside the weights; a separate critic lies next to it in `critic/`.

    Raises:
        RlhfError: bad config, data, model, reward or checkpoint, or a guard stopped the run.
    """
    policy = Path(config.output_dir) / "policy"
    mark = fingerprint(config, _inputs(config))
    if completed(config, mark):
        return policy
    with frame(config, mark, profile=profile) as run:
        _train(config, run, policy)
    return policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a PPO run consists of."""

    trainer: PPOTrainer
    prompts: list[Prompt]
    """Of the whole data set."""
    trained: Trainable
    """The policy's language model."""
    critic: Trainable | None
    """The separate critic, when there is one."""


def assemble(config: PPOConfig, run: Frame) -> Parts:
    """Load models, prompts and rewards, and put the trainer together; close its scorer when it is done.

    Raises:
        RlhfError: bad config, data, model or reward.
    """
    _check_shares(config, run.processes)
    source = resolve(config.model.path)
    tokenizer = load_tokenizer(source, trust_remote_code=config.model.trust_remote_code)
    prompts = _prompts(config, run, tokenizer)
    ends = eos_ids(source, tokenizer)
    resets = make_resets(config, run, tokenizer, prompts, ends)
    begun = prompts if resets is None else [*prompts, *(each.prompt for each in resets.pool())]
    trained = trainable(config.model, partial(load_causal_lm, seed=config.seed), tokenizer)
    _check_context(config, trained, begun)
    critic = _critic(config, tokenizer, begun)
    policy = PolicyWithValueHead(trained.model, None if critic is None else critic.model).to(run.device)
    optimizer = _optimizer(config, run, policy)
    rewards = components(config.rewards, tokenizer, dtype=run.dtype, device=run.device)
    scorer = Scorer(rewards, config.score, run.processes)
    phases, reference = run.profile.phases, Reference(trained)
    run.compile_for(_num_tokens(config, begun), trained.model, reference.model, *([critic.model] if critic else []))
    collector = Collector(policy, reference, scorer, tokenizer, config, ends, phases)
    trainer = PPOTrainer(policy, collector, optimizer, config, run.processes, _generators(config, run), resets)
    return Parts(trainer=trainer, prompts=prompts, trained=trained, critic=critic)


def _train(config: PPOConfig, run: Frame, directory: Path) -> None:
    parts = assemble(config, run)
    run.measure_machine(parts.trained.model, config.microbatch_tokens)
    steps = PPOSteps(parts.trainer, parts.prompts, run.directory.samples, run.profile)
    try:
        run.run(steps, num_steps=config.steps, eval_every=None, description="ppo", shown=SHOWN)
    finally:
        parts.trainer.collector.scorer.close()
    if run.processes.is_main:
        _save(parts, directory)


def _num_tokens(config: PPOConfig, prompts: list[Prompt]) -> int:
    """Return about how many tokens the run passes forward and back, over all processes."""
    episode = sum(len(prompt.ids) for prompt in prompts) // len(prompts) + config.sampling.max_new_tokens
    return config.steps * config.rollout_batch_size * config.epochs * episode


def _critic(config: PPOConfig, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt]) -> Trainable | None:
    if config.critic_model is None:
        return None
    critic = trainable(config.critic_model, partial(load_scalar_lm, new_head=False, seed=config.seed), tokenizer)
    own = load_tokenizer(critic.source, trust_remote_code=config.critic_model.trust_remote_code)
    if tokenizer_fingerprint(own) != tokenizer_fingerprint(tokenizer):
        raise ConfigError(
            f"critic_model.path: {critic.source} has another tokenizer ({len(own)} ids) than the policy "
            f"({len(tokenizer)} ids), and the critic reads the policy's tokens - start it from a reward model "
            "trained on the policy's base"
        )
    _check_context(config, critic, prompts)
    # The value head takes the place of the score: without a gradient, weight decay alone would move it.
    scalar_head(critic.model).requires_grad_(False)
    return critic


def _optimizer(config: PPOConfig, run: Frame, policy: PolicyWithValueHead) -> Optimizer:
    weights = MasterWeights(policy, run.dtype, keep_float32=[policy.value_head])
    value = {**parameters_of(policy, "value_head."), **parameters_of(policy, "critic.")}
    sections = {"policy": config.optimizer, "value": config.value_optimizer}
    parameters = {"policy": parameters_of(policy, "lm."), "value": value}
    groups = [
        ParameterGroup(name=name, parameters=parameters[name], settings=optimizer_settings(section))
        for name, section in sections.items()
    ]
    return Optimizer(weights, groups, config.steps * config.epochs * config.minibatches, run.processes)


def _generators(config: PPOConfig, run: Frame) -> Generators:
    return Generators(
        rollout=generator(config.seed, "rollout", run.processes.rank), epochs=generator(config.seed, "epochs")
    )


def _prompts(config: PPOConfig, run: Frame, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    section = config.prompts
    rows = load_rows(section)
    prepared = prepare_prompts(
        rows, tokenizer, max_length=section.max_length, over_long=section.over_long, on_empty=section.on_empty
    )
    run.report(describe_rows(section, rows), prepared)
    return prepared.items


def _save(parts: Parts, directory: Path) -> None:
    trainer = parts.trainer
    policy, weights, tokenizer = trainer.policy, trainer.optimizer.weights, trainer.collector.tokenizer

    def value_head(target: Path) -> None:
        state = {name: tensor.detach().cpu() for name, tensor in policy.value_head.state_dict().items()}
        save_file(state, target / "value_head.safetensors")

    export(parts.trained, weights, tokenizer, directory, value_head)
    if parts.critic is not None:
        export(parts.critic, weights, tokenizer, directory.with_name("critic"))


def _inputs(config: PPOConfig) -> list[str]:
    models = [config.model.path, *([config.critic_model.path] if config.critic_model else [])]
    return [*models, config.prompts.path, *reward_inputs(config.rewards), *reset_inputs(config)]


def _check_shares(config: PPOConfig, processes: Processes) -> None:
    samples = config.num_samples_per_prompt
    unit = processes.num * math.lcm(config.minibatches, samples)
    if config.rollout_batch_size % unit:
        below = config.rollout_batch_size // unit * unit
        near = f"{below} or {below + unit}" if below else str(unit)
        groups = f" and of processes x num_samples_per_prompt ({processes.num} x {samples})" if samples > 1 else ""
        raise ConfigError(
            f"rollout_batch_size ({config.rollout_batch_size}) must be a multiple of processes x minibatches "
            f"({processes.num} x {config.minibatches}){groups}; nearest valid: {near}"
        )


def _check_context(config: PPOConfig, trained: Trainable, prompts: list[Prompt]) -> None:
    check_positions(
        trained.model,
        trained.source,
        max(len(prompt.ids) for prompt in prompts),
        config.sampling.max_new_tokens,
        key="sampling.max_new_tokens",
        fix="lower prompts.max_length or sampling.max_new_tokens",
    )
