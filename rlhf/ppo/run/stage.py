"""Stage: loads what a PPO config names, runs the steps, saves the policy with its value head."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import PPOConfig
from rlhf.config.shared import DataSection
from rlhf.data.records import Prompt
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.models.pretrained.tokenizer import Language, eos_ids, load_tokenizer
from rlhf.models.reference import load_reference
from rlhf.ppo.run.assembly import PPORun, check_context, check_shares, compile_parts, put_together, save_parts
from rlhf.ppo.run.held_out import held_out_metrics
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.steps import SHOWN, PPOSteps
from rlhf.ppo.starts.assembly import make_resets, reset_inputs
from rlhf.stage.frame import Frame, completed, fingerprint, frame, load_rows
from rlhf.stage.model import push_result, trainable
from rlhf.stage.model_card import Card
from rlhf.stage.rewards import components, reward_inputs
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes
from rlhf.training.randomness import seed_everything
from rlhf.training.storage.run_directory import RunDirectory


def train_ppo(config: PPOConfig, *, profile: bool = False) -> Path:
    """Optimise the policy against the rewards and save it; `profile` measures where the time goes.

    Returns:
        The directory of the policy, an ordinary `AutoModelForCausalLM` (or adapter) directory with
        `value_head.safetensors` beside the weights; a separate critic goes next to it into `critic/`.

    Raises:
        RlhfError: bad config, data, model, reward or checkpoint, or a guard stopped the run.
    """
    policy = Path(config.output_dir) / "policy"
    mark = fingerprint(config, _inputs(config))
    if not completed(config, mark):
        with frame(config, mark, profile=profile) as run:
            _train(config, run, policy)
    push_result(config, policy)
    return policy


def assemble(config: PPOConfig, run: Frame) -> PPORun:
    """Load models, prompts and rewards, and build the trainer; the caller closes its scorer at the end.

    Raises:
        RlhfError: bad config, data, model or reward.
    """
    check_shares(config, run.processes)
    source = resolve(config.model.path)
    tokenizer = load_tokenizer(source, trust_remote_code=config.model.trust_remote_code, **config.model.chat)
    prompts = _prompts(config.prompts, run, tokenizer)
    language = Language(tokenizer=tokenizer, eos_ids=eos_ids(source, tokenizer))
    resets = make_resets(config, run, tokenizer, prompts, language.eos_ids)
    trained = trainable(config.model, partial(load_causal_lm, seed=config.seed), tokenizer)
    device, longest = run.loading_device, config.longest_episode
    rewards = components(config.rewards, tokenizer, dtype=run.dtype, device=device, longest=longest)
    parts = put_together(config, run, trained, language, rewards, _reference(config, run, tokenizer))
    parts.trainer.resets = resets
    begun = prompts if resets is None else [*prompts, *(each.prompt for each in resets.pool())]
    check_context(parts, begun)
    compile_parts(parts, run, begun)
    return replace(parts, prompts=prompts)


def assemble_alone(config: PPOConfig, purpose: str) -> PPORun:
    """Build a run in memory: in one process, without a run directory, without compiled blocks.

    Args:
        config: of the run.
        purpose: start of the error message for several processes, such as "doctor examines one process".

    Raises:
        RlhfError: several processes, or bad config, data, model or reward.
    """
    processes = Processes()
    if processes.num > 1:
        raise ConfigError(f"{purpose}, {processes.num} started - call it without a launcher")
    seed_everything(config.seed)
    # Never entered, so the directory is neither created nor locked.
    directory = RunDirectory(Path(config.output_dir), fingerprint="")
    dtype = compute_dtype(config.model.precision, processes.device)
    plain = config.model_copy(update={"compile": "off"})
    return assemble(plain, Frame(plain, processes, directory, dtype))


def _train(config: PPOConfig, run: Frame, directory: Path) -> None:
    parts = assemble(config, run)
    run.measure_machine(parts.trained.model, config.microbatch_tokens)
    source = ListedPrompts(parts.prompts, config)
    measure = _evaluation(config, run, parts)
    steps = PPOSteps(parts.trainer, source, run.directory.samples, evaluation=measure, profile=run.profile)
    try:
        run.run(steps, num_steps=config.steps, eval_every=config.eval_every, description="ppo", shown=SHOWN)
    finally:
        steps.close()
        parts.trainer.collector.scorer.close()
    parts.trainer.optimizer.weights.gather()
    if run.processes.is_main:
        save_parts(parts, directory, directory.with_name("critic"), Card.of(run))


def _reference(config: PPOConfig, run: Frame, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel | None:
    """Load the reference that the config names; None where it is the policy at the start."""
    if config.reference is None or config.reference == config.model.path:
        return None
    return load_reference(resolve(config.reference), tokenizer, run.dtype, run.loading_device)


def _evaluation(config: PPOConfig, run: Frame, parts: PPORun) -> Callable[[], dict[str, float]]:
    """Return the evaluation on held-out prompts; an empty one where the config names none."""
    section = config.held_out_prompts
    if section is None:
        return dict
    held_out = _prompts(section, run, parts.tokenizer)
    check_context(parts, held_out)
    run.check_overlap([prompt.ids for prompt in parts.prompts], [prompt.ids for prompt in held_out])
    return partial(held_out_metrics, parts.trainer, held_out)


def _prompts(section: DataSection, run: Frame, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    prepared = prepare_prompts(load_rows(section), tokenizer, **section.fitting)
    run.report(section.path, prepared)
    return prepared.items


def _inputs(config: PPOConfig) -> list[str]:
    critic = config.critic_model.path if config.critic_model else None
    models = [path for path in (config.reference, critic) if path is not None]
    prompts = [section.path for section in (config.prompts, config.eval_prompts) if section is not None]
    return [config.model.path, *models, *prompts, *reward_inputs(config.rewards), *reset_inputs(config)]
