"""A model made ready for training: loaded, adapted or partly frozen, and how it is saved again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlhf.models.quiet import quiet_transformers
from rlhf.models.loading import add_lora, freeze_all_but_top


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainable:
    """A model whose `requires_grad` flags say what is trained."""

    model: PreTrainedModel
    """Computes with the adapter, when there is one."""
    adapter: PeftModel | None
    """The view of peft on the same modules; None for full or partial finetuning."""
    source: str
    """Where the model was loaded from."""

    @property
    def starts_from_adapter(self) -> bool:
        """Whether the source was itself an adapter, merged when it was loaded."""
        return (Path(self.source) / "adapter_config.json").is_file()


def make_trainable(
    model: PreTrainedModel, source: str, *, lora: Mapping[str, Any] | None, trainable_layers: int | None
) -> Trainable:
    """Decide what is trained: everything, the top blocks, or low-rank adapters."""
    if lora is not None:
        return Trainable(model=model, adapter=add_lora(model, **lora), source=source)
    if trainable_layers is not None:
        freeze_all_but_top(model, trainable_layers)
    return Trainable(model=model, adapter=None, source=source)


def save_model(trainable: Trainable, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Save a model as an ordinary Hugging Face directory, or as an adapter directory, with its tokenizer.

    The weights are saved as they are in the module: let it hold float32 first. An adapter that sits on a merged one
    gets its base saved in `base_model` beside it.
    """
    model = trainable.model
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = True
    if model.can_generate():
        model.generation_config = GenerationConfig(
            eos_token_id=_all_eos(model, tokenizer), pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id
        )
    with quiet_transformers():
        if trainable.adapter is None:
            model.save_pretrained(directory)
        else:
            trainable.adapter.save_pretrained(str(directory))
    tokenizer.save_pretrained(directory)


def save_adapter_base(trainable: Trainable, directory: Path) -> None:
    """Save the merged base of an adapter that starts from another adapter, and let the adapter name it."""
    assert trainable.adapter is not None
    with trainable.adapter.disable_adapter():
        base = {
            name.replace(".base_layer", ""): tensor
            for name, tensor in trainable.model.state_dict().items()
            if ".lora_" not in name
        }
        trainable.model.save_pretrained(directory, state_dict=base)
    for config in trainable.adapter.peft_config.values():
        config.base_model_name_or_path = str(directory)


def _all_eos(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | list[int]:
    listed = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = {tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [] if listed is None else [listed])}
    return sorted(ids) if len(ids) > 1 else int(tokenizer.eos_token_id)
