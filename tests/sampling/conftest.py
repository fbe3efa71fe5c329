"""A factory of tiny models that also knows Mistral."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedModel

Factory = Callable[..., PreTrainedModel]


@pytest.fixture(scope="module")
def build(tiny_model: Factory) -> Factory:
    """`tiny_model`, which also knows Mistral, without its sliding window."""

    def made(family: str = "llama", **changes: Any) -> PreTrainedModel:
        if family != "mistral":
            return tiny_model(family, **changes)
        fields = {"sliding_window": None} | changes
        like = tiny_model("llama").config
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        names += ("num_key_value_heads", "head_dim", "max_position_embeddings", "initializer_range", "pad_token_id")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = MistralConfig(**({name: getattr(like, name) for name in names} | fields))
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

    return made
