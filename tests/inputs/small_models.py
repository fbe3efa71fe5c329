"""Small models of kinds that are not in `tests/conftest.py`, saved with the tokenizer of data/tiny_model."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 488
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 128, "initializer_range": 0.2,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def of_config(config: PreTrainedConfig, kind: Any = AutoModelForCausalLM, seed: int = 0) -> PreTrainedModel:
    """A random model in float32, the same one every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_config(config, dtype=torch.float32).eval()  # type: ignore[no-any-return]


def save(model: PreTrainedModel, directory: Path, tiny: Any) -> str:
    """Save a model with the tokenizer of data/tiny_model, and return where."""
    model.save_pretrained(directory)
    tiny.give_tokenizer(directory)
    return str(directory)
