"""A model made ready for training, with an adapter or partly frozen, and how it is saved again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import check_logits
from rlhf.models.pretrained.adapters import add_lora, base_of, base_state, is_adapter, merged_state, remember_base
from rlhf.models.pretrained.depth import freeze_all_but_top
from rlhf.models.pretrained.quiet import quiet_transformers
from rlhf.models.pretrained.tokenizer import all_eos_ids

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainable:
    """A model whose `requires_grad` flags say what is trained."""

    model: PreTrainedModel
    """Runs with the adapter, if there is one."""
    adapter: "PeftModel | None"
    """peft's view of the same modules; None for full or partial finetuning."""
    source: str
    """Where the model was loaded from."""
    continues: bool = False
    """Whether the adapter was trained before: the reference is then the model with the adapter as it was."""
    again: Callable[[], PreTrainedModel] | None = None
    """Makes the model again as it was before training, in float32 on the CPU; None for one that came from memory."""

    @property
    def saves_adapter(self) -> bool:
        """Whether `save_model` writes an adapter: a reward model is saved whole, with its adapter merged."""
        return self.adapter is not None and self.model.can_generate()

    @property
    def is_merged_when_saved(self) -> bool:
        """Whether it has an adapter, and `save_model` adds it to the weights."""
        return self.adapter is not None and not self.saves_adapter

    @property
    def starts_from_adapter(self) -> bool:
        """Whether no directory holds the base of a saved adapter: the source was an adapter, merged on loading."""
        return self.saves_adapter and not self.continues and is_adapter(self.source)


def make_trainable(
    model: PreTrainedModel, source: str, *, lora: Mapping[str, Any] | None, trainable_layers: int | None
) -> Trainable:
    """Choose what is trained: everything, the top blocks, or low-rank adapters (settings `r`, `alpha`, ...)."""
    if lora is not None:
        adapter = add_lora(model, **lora)
        name_base(adapter, source)
        return Trainable(model=model, adapter=adapter, source=source)
    if trainable_layers is not None:
        freeze_all_but_top(model, trainable_layers)
    return Trainable(model=model, adapter=None, source=source)


def continued(adapter: "PeftModel", source: str) -> Trainable:
    """Go on with an adapter that was loaded from the directory `source`.

    Raises:
        ConfigError: it is of another kind than LoRA.
    """
    from peft.tuners.lora import LoraModel

    model = adapter.get_base_model()
    if not isinstance(adapter.base_model, LoraModel) or not isinstance(model, PreTrainedModel):
        kind = adapter.active_peft_config.peft_type
        raise ConfigError(f"{source}: of peft's adapters lora: continue goes on with LoRA alone, found {kind}")
    check_logits(model, source)
    name_base(adapter, base_of(source))
    return Trainable(model=model, adapter=adapter, source=source, continues=True)


def save_model(trainable: Trainable, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Save a model as an ordinary Hugging Face directory, or as an adapter directory, with its tokenizer.

    The weights are saved in the module's dtype: make it hold float32 first. A reward model is saved whole, its adapter
    merged; the module keeps its adapter. An adapter on top of a merged one needs `save_adapter_base` first.
    """
    model, adapter = trainable.model, trainable.adapter
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = True
    if model.can_generate():
        model.generation_config = GenerationConfig(
            eos_token_id=_all_eos(model, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
        )
    with quiet_transformers():
        if adapter is None:
            model.save_pretrained(directory)
        elif trainable.saves_adapter:
            adapter.save_pretrained(str(directory))
            remember_base(directory, str(adapter.active_peft_config.base_model_name_or_path))
            if model.generation_config is not None:  # peft leaves it out, and with it the other EOS ids
                model.generation_config.save_pretrained(directory)
        else:
            model.save_pretrained(directory, state_dict=merged_state(model))
        tokenizer.save_pretrained(directory)


def save_whole(trainable: Trainable, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Save a model for a program that knows no adapters: an adapter is merged; the module keeps its own."""
    state = None if trainable.adapter is None else merged_state(trainable.model)
    with quiet_transformers():
        trainable.model.save_pretrained(directory, state_dict=state)
        tokenizer.save_pretrained(directory)


def save_adapter_base(trainable: Trainable, directory: Path) -> None:
    """Save the merged base of an adapter that starts from another adapter; `name_base` makes the adapter name it."""
    with quiet_transformers():
        trainable.model.save_pretrained(directory, state_dict=base_state(trainable.model))


def name_base(adapter: "PeftModel", source: str) -> None:
    """Make the adapter name its base, a local one by its absolute path, so that it loads from any directory."""
    path = Path(source)
    for config in adapter.peft_config.values():
        config.base_model_name_or_path = str(path.absolute()) if path.is_dir() else source


def _all_eos(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | list[int]:
    listed = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = all_eos_ids(tokenizer, listed)
    return list(ids) if len(ids) > 1 else ids[0]
