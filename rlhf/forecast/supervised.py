"""The work of SFT and of the reward model."""

from collections.abc import Sequence
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlhf.config import RewardModelConfig, RunConfig, SftConfig
from rlhf.config.shared import DataSection
from rlhf.data.records import Example, Pair
from rlhf.data.tokenization import prepare_examples
from rlhf.data.unfinished import with_unfinished
from rlhf.forecast.load import Load, of_model
from rlhf.forecast.origin import origin_of, tuned_sizes
from rlhf.forecast.records import Known, looked_at
from rlhf.functional.flops import causal_work, forward_flops
from rlhf.models.passes.matrices import model_matrices
from rlhf.models.pretrained.loading import scalar_head
from rlhf.models.scalar import ScalarModel
from rlhf.reward_model import PreferenceObjective, PreferenceTask
from rlhf.sft import CloningTask, NextTokenObjective
from rlhf.training.supervised import Objective


def sft_load(config: SftConfig, recipe: RunConfig) -> tuple[Load, PreTrainedModel]:
    """Return the work of SFT, and its model without weights.

    Raises:
        Unknown: model or data are not on this machine.
        RlhfError: they cannot be used.
    """
    origin = origin_of(config.model.path, recipe, "sft")
    model = tuned_sizes(config.model, origin, AutoModelForCausalLM)
    known = demonstrations_of(config, config.data, recipe)
    load = _trained(NextTokenObjective(model, known.items, 0), known.num, config) + Load(seconds=known.seconds)
    if config.eval_data is not None:
        held_out = demonstrations_of(config, config.eval_data, recipe)
        load += _held_out(NextTokenObjective(model, held_out.items, 0), held_out, _num_steps(config, known.num), config)
    return load + _model_of(model, config, known.num), model


def demonstrations_of(config: SftConfig, section: DataSection, recipe: RunConfig) -> Known[Example]:
    """Return demonstrations as SFT will learn them.

    Raises:
        Unknown: model or data are not on this machine.
        RlhfError: they cannot be used.
    """
    tokenizer = origin_of(config.model.path, recipe, "sft").tokenizer
    return looked_at(section, lambda source: CloningTask(config).prepared(source, tokenizer))


def reward_model_load(config: RewardModelConfig, recipe: RunConfig) -> tuple[Load, PreTrainedModel]:
    """Return the work of the reward model, and the model without weights.

    Raises:
        Unknown: model or data are not on this machine.
        RlhfError: they cannot be used.
    """
    origin = origin_of(config.model.path, recipe, "reward_model")
    model = tuned_sizes(config.model, origin, AutoModelForSequenceClassification)
    task, tokenizer, scalar = PreferenceTask(config), origin.tokenizer, ScalarModel(model)

    def objective(pairs: Sequence[Pair]) -> PreferenceObjective:
        return PreferenceObjective(scalar, pairs, 0, config.centring_coef)

    known = looked_at(config.data, lambda source: task.prepared(source, tokenizer))
    learnt = with_unfinished(known.items, config.unfinished_fraction, config.seed)
    load = _trained(objective(learnt), known.num, config) + Load(seconds=known.seconds)
    if config.eval_data is not None:
        held_out = looked_at(config.eval_data, lambda source: task.prepared(source, tokenizer))
        load += _held_out(objective(held_out.items), held_out, _num_steps(config, known.num), config)
    if config.demonstrations is not None:
        fitting, append_eos = config.demonstrations.fitting, config.append_eos
        read = looked_at(
            config.demonstrations,
            lambda source: prepare_examples(source.rows, tokenizer, append_eos=append_eos, **fitting),
        )
        work = causal_work([len(each.input_ids) for each in read.items], len(read.items))
        flops = forward_flops(model_matrices(model, [scalar_head(model)]), work)
        load += Load(inference=flops * read.num / len(read.items), seconds=read.seconds)
    return load + _model_of(model, config, known.num), model


def _trained(objective: Objective, num: int, config: SftConfig | RewardModelConfig) -> Load:
    """Return the passes over the batches: an item of the looked at stands for each."""
    looked = len(objective.lengths())
    flops = sum(objective.cost(range(looked))[1].values())
    epochs = _num_steps(config, num) / _batches(config, num)
    return Load(training=flops * epochs * num / looked)


def _held_out(objective: Objective, known: Known[Any], num_steps: int, config: SftConfig | RewardModelConfig) -> Load:
    """Return the passes over held-out items, and the making of these."""
    looked = len(known.items)
    times = -(-num_steps // (config.eval_every or num_steps))
    flops = objective.cost(range(looked))[1]["forward"]
    return Load(inference=flops * times * known.num / looked, seconds=known.seconds)


def _model_of(model: PreTrainedModel, config: SftConfig | RewardModelConfig, num: int) -> Load:
    steps = _num_steps(config, num)
    return of_model(model, num_updates=steps, every=config.checkpoints.every, num_steps=steps)


def _num_steps(config: SftConfig | RewardModelConfig, num: int) -> int:
    return config.steps or (config.epochs or 0) * _batches(config, num)


def _batches(config: SftConfig | RewardModelConfig, num: int) -> int:
    """Return the steps of an epoch."""
    return -(-num // config.batch_size)
