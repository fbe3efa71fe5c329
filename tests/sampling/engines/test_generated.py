"""Responses by transformers' `generate`: the same draws, and for models with states the logprobs of a whole pass."""

from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from rlhf.batches import Samples
from rlhf.errors import EngineError
from rlhf.sampling.batched import Decoding, sample_in_batches
from rlhf.sampling.engines import generated
from rlhf.sampling.engines.generated import takes_keys_and_values
from rlhf.sampling.engines.local import LocalEngine
from rlhf.sampling.filters import Filters

STATES = {
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "expand": 2},
    "rwkv": {"attention_hidden_size": 32, "context_length": 64},
}
LENGTHS = (7, 3, 7, 1, 5)


def with_states(family: str) -> Any:
    """A tiny random model whose past is a state."""
    config = AutoConfig.for_model(
        family, vocab_size=128, hidden_size=32, num_hidden_layers=2, initializer_range=0.3, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, **STATES[family],
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def decoding(tokenizer: Any, **changes: Any) -> Decoding:
    drawn = {"max_new_tokens": 6, "temperature": 0.8, "stop_strings": ["e"], "batch_rows": 3, "eos_ids": range(40, 60)}
    return Decoding(**(drawn | changes), tokenizer=tokenizer)


def assert_same(one: Samples, other: Samples) -> None:
    assert one.responses == other.responses and torch.equal(one.ended, other.ended)
    torch.testing.assert_close(one.logprobs, other.logprobs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("filters", [None, Filters(top_k=5, repetition_penalty=1.3)])
def test_a_model_that_both_know_gets_the_same_responses_from_both(
    tiny_model: Any, tiny_tokenizer: Any, tiny_sampling: ModuleType, filters: Filters | None
) -> None:
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(*LENGTHS)
    model.generation_config = GenerationConfig(repetition_penalty=3.0, do_sample=True, top_k=1, eos_token_id=5)
    drawn, forced = decoding(tiny_tokenizer, filters=filters), torch.tensor([3, 0, 1, 0, 4])
    own, other = LocalEngine(model), LocalEngine(model, generates=True)
    found = own.sample(prompts, drawn, tiny_sampling.generator(3), forced)
    assert_same(found, other.sample(prompts, drawn, tiny_sampling.generator(3), forced))
    assert model.generation_config.repetition_penalty == 3.0
    assert len({len(ids) for ids in found.responses}) > 1 and bool(found.ended.any()) and not bool(found.ended.all())


@pytest.mark.sweep
@pytest.mark.parametrize("family", list(STATES))
def test_the_past_of_a_model_with_states_is_not_forgotten(
    tiny_sampling: ModuleType, tiny_tokenizer: Any, family: str
) -> None:
    model, prompts = with_states(family), tiny_sampling.prompts(*LENGTHS)
    assert not takes_keys_and_values(model)
    drawn = decoding(tiny_tokenizer, stop_strings=[], eos_ids=(), temperature=1.0)
    found = sample_in_batches(model, prompts, drawn, tiny_sampling.generator(3))
    for row, (length, response) in enumerate(zip(LENGTHS, found.responses, strict=True)):
        whole = torch.cat([prompts.prompt_ids[row, :length], torch.tensor(response)])
        with torch.no_grad():
            logits = model(input_ids=whole[None]).logits[0, length - 1 : -1].float()
        expected = logits.log_softmax(-1).gather(1, whole[length:, None])[:, 0]
        torch.testing.assert_close(found.logprobs[row, : len(response)], expected, rtol=1e-3, atol=1e-3)


def test_a_model_whose_generate_forgets_is_refused(
    tiny_sampling: ModuleType, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generated, "LARGEST_DIFFERENCE", -1.0)
    model, prompts = with_states("mamba"), tiny_sampling.prompts(9)
    with pytest.raises(EngineError, match=r"^MambaForCausalLM: transformers' generate draws from other logprobs"):
        sample_in_batches(model, prompts, decoding(tiny_tokenizer), tiny_sampling.generator(3))


def test_a_local_engine_knows_the_version_that_it_was_told(tiny_model: Any) -> None:
    engine = LocalEngine(tiny_model("llama"))
    assert engine.version == 0 and engine.is_exact
    engine.load(None, 3)  # type: ignore[arg-type]
    assert engine.version == 3
