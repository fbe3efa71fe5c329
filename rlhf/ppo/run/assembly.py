"""The parts of a PPO run: built from a loaded policy, checked against the run's prompts, saved at the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import PPOSettings
from rlhf.data.records import Prompt
from rlhf.errors import ConfigError
from rlhf.models.passes.rotary import record_factors
from rlhf.models.policy import PolicyWithValueHead
from rlhf.models.pretrained.generation import ignored_settings
from rlhf.models.pretrained.loading import check_positions, load_scalar_lm, scalar_head
from rlhf.models.pretrained.setup import Trainable
from rlhf.models.pretrained.tokenizer import Language, load_tokenizer, tokenizer_fingerprint
from rlhf.models.reference import Reference
from rlhf.models.sharing import own_weights, share_equal_weights
from rlhf.ppo.rollout import Collector
from rlhf.ppo.run.engine import make_engine, weights_of
from rlhf.ppo.scoring.scorer import Scorer
from rlhf.ppo.trainer import PPO, Generators
from rlhf.rewards.component import Component
from rlhf.rewards.protocol import Modelled
from rlhf.stage.frame import Frame
from rlhf.stage.model import (
    export,
    frozen_copy,
    held,
    hold_frozen,
    optimizer_settings,
    parameters_of,
    say_what_is_quantized,
    take_up,
    trainable,
)
from rlhf.stage.model_card import Card
from rlhf.training.frozen import Sources
from rlhf.training.optimizer import Optimizer, ParameterGroup
from rlhf.training.processes import Processes
from rlhf.training.randomness import generator

VALUE_HEAD = "value_head.safetensors"
"""The file next to the weights of every policy that PPO saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PPORun:
    """The trainer, prompts and trained models of a PPO run."""

    trainer: PPO
    prompts: list[Prompt]
    """All prompts of the data set; empty if they are not known before the run."""
    trained: Trainable
    """The policy's language model."""
    critic: Trainable | None
    """The separate critic, when there is one."""

    @property
    def models(self) -> list[Trainable]:
        """The trained models, the policy first."""
        return [self.trained] if self.critic is None else [self.trained, self.critic]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The policy's."""
        return self.trainer.collector.tokenizer


def put_together(
    config: PPOSettings,
    run: Frame,
    trained: Trainable,
    language: Language,
    rewards: Sequence[Component],
    reference: PreTrainedModel | None = None,
) -> PPORun:
    """Put a value head on the policy, freeze the reference, and build the optimizer.

    Args:
        config: how to train.
        run: where to compute.
        trained: the policy, before its first step.
        language: the policy's.
        rewards: score the responses; the caller closes the trainer's scorer at the end.
        reference: a frozen model in the run's compute dtype; None takes the policy as it is now.

    Raises:
        ConfigError: the critic cannot be loaded or does not fit.
    """
    critic = _critic(config, language.tokenizer)
    run.choose_factors(
        config.longest_episode,
        policy=trained.model,
        critic=None if critic is None else critic.model,
        reference=reference,
    )
    if critic is not None:
        record_factors(critic.model)
    run.choose_packing(policy=trained.model, critic=None if critic is None else critic.model, reference=reference)
    say_what_is_quantized(run.processes, policy=trained, critic=critic)
    ignored = ignored_settings(trained.model)
    if ignored is not None:
        run.processes.say(f"policy: {ignored}")
    policy = PolicyWithValueHead(trained.model, None if critic is None else critic.model).to(run.loading_device)
    if config.has_critic and load_value_head(policy, trained.source):
        run.processes.say(f"value head: continued from {trained.source}")
        if reference is None:
            run.processes.say("reference: this policy, which PPO has trained, so the KL starts at 0 - see `reference`")
    if reference is None:
        reference = frozen_copy(run.processes, trained, run.dtype)
    models = {"lm.": trained, "critic.": critic}
    sources = {name: part.again for name, part in models.items() if part is not None and part.again is not None}
    optimizer = _optimizer(config, run, policy, sources)
    scorer = Scorer(rewards, config.score, run.processes)
    frozen = Reference(trained, reference, on_host=config.reference_on_host)
    if run.processes.sharding.name == "none":
        critics = [] if critic is None else [critic.model]
        asked = [] if config.reference_on_host else [frozen.model]
        share_equal_weights([trained.model, *critics, *asked, *scorer.models])
    else:
        _check_deadlines(scorer)
        hold_frozen(run.processes, *scorer.models, *([] if reference is None else [reference]))
    collector = Collector(policy, frozen, scorer, language, config, run.processes, run.profile.phases)
    collector.engine = make_engine(config, run, policy)
    if not collector.engine.is_exact:
        collector.weights = weights_of(trained, optimizer.weights, language.tokenizer, policy)
    trainer = PPO(policy, collector, optimizer, config, run.processes, _generators(config, run))
    return PPORun(trainer=trainer, prompts=[], trained=trained, critic=critic)


def load_value_head(policy: PolicyWithValueHead, source: str) -> bool:
    """Load the value head that PPO saved with a policy into `policy`; False where there is none.

    Raises:
        ConfigError: it is damaged, or belongs to a critic of another width.
    """
    file = Path(source) / VALUE_HEAD
    if not source or not file.is_file():  # a model that was built in memory has no source
        return False
    try:
        saved = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file}: cannot be read ({error}) - save the policy again, or remove the file") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in policy.value_head.state_dict().items()}
    if shapes != expected:
        raise ConfigError(
            f"{file}: expected {expected}, found {shapes} - give the critic it was trained with, or remove the file to "
            "start a new value head"
        )
    policy.value_head.load_state_dict(saved)
    return True


def check_context(parts: PPORun, prompts: Sequence[Prompt]) -> None:
    """Refuse prompts that are too long for the positions of a model.

    Raises:
        ConfigError: a prompt and its longest response exceed a model's positions.
    """
    for trained in parts.models:
        check_positions(
            trained.model,
            trained.source,
            max(len(prompt.ids) for prompt in prompts),
            parts.trainer.config.sampling.max_new_tokens,
            key="sampling.max_new_tokens",
            fix="lower prompts.max_length or sampling.max_new_tokens",
        )


def compile_parts(parts: PPORun, run: Frame, prompts: Sequence[Prompt]) -> None:
    """Compile the models if a run on these prompts is long enough to make up for it."""
    config = parts.trainer.config
    mean = sum(len(prompt.ids) for prompt in prompts) // max(len(prompts), 1)
    episode = mean + config.sampling.max_new_tokens
    num_tokens = config.steps * config.rollout_batch_size * config.epochs * episode
    reference = parts.trainer.collector.reference.model
    run.compile_for(num_tokens, *[trained.model for trained in parts.models], reference)


def check_shares(config: PPOSettings, processes: Processes, num_episodes: int | None = None) -> None:
    """Refuse a batch that does not divide over the processes: the config's, or one of `num_episodes`.

    Raises:
        ConfigError: names the nearest valid sizes.
    """
    samples = config.num_samples_per_prompt
    unit = processes.num * math.lcm(config.minibatches, samples)
    size = config.rollout_batch_size if num_episodes is None else num_episodes
    if size % unit or not size:
        below = size // unit * unit
        near = f"{below} or {below + unit}" if below else str(unit)
        groups = f" and of processes x num_samples_per_prompt ({processes.num} x {samples})" if samples > 1 else ""
        name = "rollout_batch_size" if num_episodes is None else "episodes of a rollout"
        raise ConfigError(
            f"{name} ({size}) must be a multiple of processes x minibatches "
            f"({processes.num} x {config.minibatches}){groups}; nearest valid: {near}"
        )


def holds_something_else(directory: Path) -> bool:
    """Whether a path holds anything but a policy that PPO saved, which may be replaced."""
    if not directory.is_dir():
        return directory.exists()
    return any(directory.iterdir()) and not (directory / VALUE_HEAD).is_file()


def save_parts(parts: PPORun, directory: Path, critic: Path, card: Card) -> None:
    """Save the policy with its value head, and a separate critic in its own directory; on one process only."""
    trainer = parts.trainer
    policy, weights, tokenizer = trainer.policy, trainer.optimizer.weights, trainer.collector.tokenizer

    def value_head(target: Path) -> None:
        state = {name: tensor.detach().cpu() for name, tensor in policy.value_head.state_dict().items()}
        save_file(state, target / VALUE_HEAD)
        card.write(target, "ppo", parts.trained.source)

    export(parts.trained, weights, tokenizer, directory, value_head)
    if parts.critic is not None:
        made = partial(card.write, kind="critic", source=parts.critic.source)
        export(parts.critic, weights, tokenizer, critic, made)


def take_up_parts(parts: PPORun, directory: Path, critic: Path) -> None:
    """Load what `save_parts` saved into the models from which the run started."""
    policy, weights = parts.trainer.policy, parts.trainer.optimizer.weights
    own_weights([each.model for each in parts.models])  # a reward model must not change with them
    take_up(parts.trained, weights, directory)
    if parts.critic is not None:
        take_up(parts.critic, weights, critic)
    load_value_head(policy, str(directory))


def _critic(config: PPOSettings, tokenizer: PreTrainedTokenizerBase) -> Trainable | None:
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
    # The value head replaces the score head, which has no gradient: weight decay alone would move it.
    scalar_head(critic.model).requires_grad_(False)
    return critic


def _optimizer(config: PPOSettings, run: Frame, policy: PolicyWithValueHead, sources: Sources) -> Optimizer:
    models = [policy.lm] if policy.critic is None else [policy.lm, policy.critic]
    weights = held(run.processes, policy, models, run.dtype, keep_float32=[policy.value_head], sources=sources)
    value = {**parameters_of(policy, "value_head."), **parameters_of(policy, "critic.")}
    sections = {"policy": config.optimizer, "value": config.value_optimizer}
    parameters = {"policy": parameters_of(policy, "lm."), "value": value}
    groups = [
        ParameterGroup(name=name, parameters=parameters[name], settings=optimizer_settings(section))
        for name, section in sections.items()
    ]
    return Optimizer(weights, groups, config.steps * config.epochs * config.minibatches, run.processes)


def _check_deadlines(scorer: Scorer) -> None:
    """Refuse a deadline for models in shards: a call that is given up would go on while its weights are taken away."""
    for each in scorer.rewards:
        if isinstance(each.reward, Modelled) and each.options.deadline is not None:
            raise ConfigError(
                f"rewards: {each.name}: deadline: {each.options.deadline:g}, but a model in shards (FSDP) cannot be "
                "left in the middle of a call - leave it out"
            )


def _generators(config: PPOSettings, run: Frame) -> Generators:
    return Generators(
        rollout=generator(config.seed, "rollout", run.processes.rank), epochs=generator(config.seed, "epochs")
    )
