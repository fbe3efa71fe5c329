"""A factory of tiny models that also knows Mistral; what the machine must have; short samples."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedModel

from rlhf.batches import PromptBatch, Samples

Factory = Callable[..., PreTrainedModel]
Tolerance = Callable[[Any, PromptBatch, Samples], float]


@pytest.fixture(scope="session")
def tiny_sampling(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `tiny_sampling.py`."""
    return module(Path(__file__).with_name("tiny_sampling.py"))


@pytest.fixture(scope="session")
def recorded_graph(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `recorded_graph.py`."""
    return module(Path(__file__).with_name("recorded_graph.py"))


@pytest.fixture
def captures(recorded_graph: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Steps are recorded where CUDA would capture them; what was recorded."""
    found = recorded_graph.Captures()
    monkeypatch.setattr("rlhf.sampling.graphs.capture", found)
    return found


@pytest.fixture(scope="module")
def packs_bfloat16() -> None:
    """Skips where the packed decoder cannot run."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU packs no bfloat16")


@pytest.fixture(scope="session")
def logprob_tolerance(roundings: ModuleType) -> Tolerance:
    """A function: how far logprobs of samples (temperature 0 or 1) may be from those of another way to sample them."""

    def found(model: Any, prompts: PromptBatch, samples: Samples) -> float:
        largest, longest = 0.0, 0
        for row in range(len(prompts.prompt_ids)):
            prompt, response = prompts.prompt_ids[row], samples.response_ids[row]
            ids = torch.cat([prompt[prompts.prompt_mask[row]], response[samples.response_mask[row]]])
            with torch.no_grad():
                largest = max(largest, float(model(input_ids=ids[None], use_cache=False).logits.abs().max()))
            longest = max(longest, len(ids))
        return roundings.LOGPROB * float(roundings.apart(largest, roundings.of_a_pass(model.config, longest)))

    return found


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
