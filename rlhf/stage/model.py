"""The model of a stage: loaded, tuned as its section says, and saved."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config.reward_model import DepthSection
from rlhf.config.shared import ModelSection, OptimizerSection, TuningSection
from rlhf.config.stage import StageSettings
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.passes.anatomy import blocks
from rlhf.models.passes.checkpointing import use_checkpointing
from rlhf.models.passes.fused import speed_up
from rlhf.models.pretrained.adapters import base_of, is_adapter, load_merged
from rlhf.models.pretrained.depth import keep_first_blocks
from rlhf.models.pretrained.hub import base_elsewhere, upload
from rlhf.models.pretrained.loading import frozen_in, load_adapter, load_causal_lm, load_scalar_lm
from rlhf.models.pretrained.quantization import quantize, what_is_quantized
from rlhf.models.pretrained.setup import Trainable, continued, make_trainable, name_base, save_adapter_base, save_model
from rlhf.models.pretrained.vocabulary import fit_vocabulary
from rlhf.training.frozen import Sources
from rlhf.training.optimizer import OptimizerSettings
from rlhf.training.processes import Processes, is_main_by_launch
from rlhf.training.sharding.fsdp2 import Fsdp2
from rlhf.training.sharding.master_weights import MasterWeights
from rlhf.training.sharding.sharded_weights import ShardedWeights
from rlhf.training.sharding.weights import Weights
from rlhf.training.storage.atomic import atomic_directory


def trainable(section: ModelSection, load: Callable[..., Any], tokenizer: PreTrainedTokenizerBase) -> Trainable:
    """Load the model of a section with `load` and decide which weights are trained.

    Args:
        section: which model, and which of its weights are trained.
        load: `load_causal_lm` or `load_scalar_lm`.
        tokenizer: the model must have embeddings for its tokens.

    Raises:
        ConfigError: the tokenizer does not fit, or the config wants an adapter on weights that are saved nowhere.
    """
    if section.random_init and section.lora is not None:
        raise ConfigError("model: lora on random_init would save an adapter without its base - train the model in full")
    return replace(_trainable(section, load, tokenizer), again=lambda: _trainable(section, load, tokenizer).model)


def _trainable(section: ModelSection, load: Callable[..., Any], tokenizer: PreTrainedTokenizerBase) -> Trainable:
    source = resolve(section.path)
    if section.lora == "continue":
        return going_on(source, section, tokenizer, trust_remote_code=section.trust_remote_code)
    model = load(
        source,
        random_init=section.random_init,
        trust_remote_code=section.trust_remote_code,
        quantize=section.quantize,
    )
    return tuned(model, section, tokenizer, source)


def tuned(model: PreTrainedModel, section: TuningSection, tokenizer: PreTrainedTokenizerBase, source: str) -> Trainable:
    """Decide which blocks of a loaded model are kept and which weights are trained; `source` names it.

    Raises:
        ConfigError: the tokenizer does not fit, or the model has fewer blocks than are kept or trained.
    """
    if section.lora == "continue":
        raise ConfigError(f"model.lora: continue, but {source or 'the model'} is no adapter - use lora: {{r: 16}}")
    if isinstance(section, DepthSection) and section.num_layers is not None:
        keep_first_blocks(model, section.num_layers)
    fit_vocabulary(model, tokenizer, source)
    speed_up(model)
    if is_adapter(source) and is_main_by_launch():
        print(_what_was_merged(model, section, source), flush=True)
    if section.gradient_checkpointing:
        use_checkpointing(model)
    if section.quantize is not None:
        quantize(model, section.quantize)
    return make_trainable(model, source, lora=section.new_lora, trainable_layers=section.trainable_layers)


def going_on(
    source: str, section: TuningSection, tokenizer: PreTrainedTokenizerBase, *, trust_remote_code: bool = False
) -> Trainable:
    """Load an adapter of a language model, which is trained further as its section says.

    Raises:
        ConfigError: the directory holds none, or it does not fit the tokenizer.
    """
    if not is_adapter(source):
        raise ConfigError(
            f"model.lora: continue needs the directory of an adapter in model.path, and {source} is none - use lora: "
            "{r: 16} for a new one"
        )
    trained = continued(
        load_adapter(source, trust_remote_code=trust_remote_code, is_trainable=True, quantize=section.quantize),
        source,
    )
    fit_vocabulary(trained.model, tokenizer, source)
    speed_up(trained.model)
    if section.gradient_checkpointing:
        use_checkpointing(trained.model)
    return trained


def _what_was_merged(model: PreTrainedModel, section: TuningSection, source: str) -> str:
    merged = f"model.path: {source} is an adapter, and was merged into its base {base_of(source)}"
    if not model.can_generate():
        return f"{merged}: the result is a whole model"
    if section.lora is not None:
        return f"{merged}: a new adapter is trained on the sum - model.lora=continue goes on with the old one"
    return f"{merged}: the sum is trained and saved as a whole model - model.lora=continue goes on with the adapter"


def say_what_is_quantized(processes: Processes, **models: Trainable | None) -> None:
    """Say of each model how many of its weights are quantized, if some are."""
    for name, trained in models.items():
        said = None if trained is None else what_is_quantized(trained.model)
        if said is not None:
            processes.say(f"{name}: {said}")


def optimizer_settings(section: OptimizerSection) -> OptimizerSettings:
    """Return the section as the optimizer takes it."""
    return OptimizerSettings(**section.model_dump())


def held(
    processes: Processes,
    module: nn.Module,
    models: Sequence[PreTrainedModel],
    dtype: torch.dtype,
    *,
    keep_float32: Sequence[nn.Module] = (),
    sources: Sources | None = None,
) -> Weights:
    """Take the master weights of a float32 module in place, whole or in shards as the launcher asks.

    Args:
        processes: of the run.
        module: what is trained, on the run's loading device.
        models: the transformers in it, or the module itself.
        dtype: what it computes in.
        keep_float32: parts that stay float32, such as a value head.
        sources: where a whole module's frozen weights are read again in float32; shards are float32 themselves.

    Raises:
        ConfigError: it cannot be sharded.
    """
    sharding = processes.sharding
    if isinstance(sharding, Fsdp2):
        parts = [block for model in models for block in blocks(model)]
        return ShardedWeights(module, models, parts, dtype, sharding, keep_float32=keep_float32)
    return MasterWeights(module, dtype, keep_float32=keep_float32, sources=sources)


def hold_frozen(processes: Processes, *modules: nn.Module) -> None:
    """Cut frozen models into shards, in place, if the launcher asks for it.

    Raises:
        ConfigError: one cannot be sharded.
    """
    sharding = processes.sharding
    if not isinstance(sharding, Fsdp2):
        return
    for module in modules:
        model = next(part for part in module.modules() if isinstance(part, PreTrainedModel))
        dtype = next(blocks(model)[0].parameters()).dtype
        kept = [parameter for parameter in module.parameters() if parameter.dtype != dtype]  # a head in float32
        sharding.shard(module, (), list(blocks(model)), dtype, kept)


def frozen_copy(processes: Processes, trained: Trainable, dtype: torch.dtype) -> PreTrainedModel | None:
    """Return the reference of a policy that is about to be cut into shards, which nothing can copy.

    None where the policy stays whole, or where it is its own reference, with its new adapter switched off.
    """
    is_own = trained.adapter is not None and not trained.continues
    if is_own or not isinstance(processes.sharding, Fsdp2):
        return None
    return frozen_in(copy.deepcopy(trained.model), dtype)


def export(
    trained: Trainable,
    weights: Weights,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    extra: Callable[[Path], None] | None = None,
) -> None:
    """Save a trained model in float32, whole or not at all; `extra` adds files."""
    with weights.in_full_precision(), atomic_directory(directory) as temporary:
        if trained.adapter is not None and trained.starts_from_adapter:
            base = directory.with_name("base_model").absolute()
            with atomic_directory(base) as temporary_base:
                save_adapter_base(trained, temporary_base)
            name_base(trained.adapter, str(base))
        save_model(trained, tokenizer, temporary)
        if extra is not None:
            extra(temporary)


def push_result(config: StageSettings, directory: Path) -> None:
    """Upload the model of a complete stage if the config says where to; on one process, whoever calls.

    Raises:
        HubError: the upload failed.
    """
    if config.push_to_hub is not None and is_main_by_launch():
        kept = f"the result in {directory} is complete: run the same again to upload it, and nothing else"
        push(directory, config.push_to_hub, private=config.hub_private_repo, kept=kept)


def push(directory: Path, repo: str, *, private: bool | None, kept: str) -> str:
    """Upload a saved model and print its address, which is returned; call it on one process only.

    Args:
        directory: of the model.
        repo: `user/name`.
        private: whether a new repository is; None leaves it to its owner's default.
        kept: end of the error message: what is not lost.

    Raises:
        HubError: the upload failed.
    """
    base = base_elsewhere(directory)
    if base is not None:
        print(f"push_to_hub: the adapter needs its base, which is only here: {base} - see `rlhf merge`", flush=True)
    address = upload(directory, repo, private=private, message=f"Upload {directory.name.replace('_', ' ')}", kept=kept)
    print(f"push_to_hub: {address}", flush=True)
    return address


def take_up(trained: Trainable, weights: Weights, directory: Path) -> None:
    """Load what `export` saved into the model from which its training started.

    Args:
        trained: the model.
        weights: its master weights, or those of a module that holds it.
        directory: of the saved model, or of its adapter.

    Raises:
        ConfigError: the directory cannot be read, or holds another model.
    """
    dtype, made = trained.model.dtype, set[int]()
    with weights.in_full_precision(takes_changes=True):
        if trained.saves_adapter:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(trained.adapter, load_peft_weights(str(directory)))
        elif trained.model.can_generate():
            trained.model.load_state_dict(load_causal_lm(str(directory)).state_dict())
        else:
            saved = load_scalar_lm(str(directory), new_head=False)
            trained.model.config.score_mean = getattr(saved.config, "score_mean", 0.0)
            made = set(map(id, load_merged(trained.model, saved.state_dict())))
    for name, parameter in weights.module.named_parameters():
        if id(parameter) in made and dtype != torch.float32:
            weights.frozen.keep(name, parameter, dtype)


def parameters_of(module: nn.Module, prefix: str = "") -> dict[str, nn.Parameter]:
    """Return the trained parameters whose names start with `prefix`."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad and name.startswith(prefix)}
