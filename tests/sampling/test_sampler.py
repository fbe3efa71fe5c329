"""Tests of rlhf.sampling.sampler."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from rlhf.batches import PromptBatch, Samples
from rlhf.errors import GuardStop
from rlhf.sampling import sampler

Factory = Callable[..., PreTrainedModel]
Tolerance = Callable[[Any, PromptBatch, Samples], float]


def _generate(model: PreTrainedModel, prompts: PromptBatch, **settings: Any) -> torch.Tensor:
    """Greedy responses of transformers, with 0 after the EOS."""
    lengths = prompts.prompt_mask.sum(-1).tolist()
    longest = max(lengths)
    ids, mask = torch.zeros(2, len(lengths), longest, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, longest - length :] = prompts.prompt_ids[row, :length]
        mask[row, longest - length :] = 1
    settings = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None} | settings
    output = model.generate(ids, attention_mask=mask, **settings)
    return output[:, longest:]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("lengths", [(4, 4, 4), (3, 12, 7, 20)])
def test_greedy_equals_generate_token_for_token(
    tiny_model: Factory, family: str, lengths: tuple[int, ...], tiny_sampling: ModuleType
) -> None:
    model, prompts = tiny_model(family), tiny_sampling.prompts(*lengths)
    full = _generate(model, prompts, max_new_tokens=24)
    found = tiny_sampling.sample(model, prompts, temperature=0.0, max_new_tokens=24)
    assert torch.equal(found.response_ids, full)
    assert not bool(found.ended.any()) and bool(found.response_mask.all())
    eos = int(full[1, 5])  # a token that ends at least row 1 early
    expected = _generate(model, prompts, max_new_tokens=24, eos_token_id=eos)
    found = tiny_sampling.sample(model, prompts, temperature=0.0, max_new_tokens=24, eos_ids=(eos,))
    assert torch.equal(found.response_ids, expected)
    assert found.response_mask[1].sum() <= 6 and bool(found.ended[1])


def test_greedy_equals_generate_with_several_eos_ids_and_a_minimum_length(
    tiny_model: Factory, tiny_sampling: ModuleType
) -> None:
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 9, 5)
    full = _generate(model, prompts, max_new_tokens=20)
    settings = {"max_new_tokens": 20, "min_new_tokens": 6}
    eos = (int(full[0, 2]), int(full[1, 8]))
    expected = _generate(model, prompts, eos_token_id=list(eos), **settings)
    found = tiny_sampling.sample(model, prompts, temperature=0.0, eos_ids=eos, **settings)
    assert torch.equal(found.response_ids, expected)
    assert not bool(torch.isin(found.response_ids[:, :6], torch.tensor(eos)).any())
    assert bool(found.ended.any())


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_logprobs_equal_those_of_a_fresh_forward(
    tiny_model: Factory, roundings: ModuleType, family: str, temperature: float, tiny_sampling: ModuleType
) -> None:
    model, prompts = tiny_model(family), tiny_sampling.prompts(3, 12, 7, 20)
    found = tiny_sampling.sample(model, prompts, temperature=temperature, eos_ids=(5, 9, 30, 31, 77, 101, 102))
    for row in range(4):
        prompt = prompts.prompt_ids[row][prompts.prompt_mask[row]]
        response = found.response_ids[row][found.response_mask[row]]
        with torch.no_grad():
            logits = model(input_ids=torch.cat([prompt, response])[None], use_cache=False).logits[0]
        scaled = logits[len(prompt) - 1 : -1].double() / (temperature or 1.0)
        expected = scaled.log_softmax(-1).gather(-1, response[:, None])[:, 0]
        num_roundings = roundings.of_a_pass(model.config, len(prompt) + len(response))
        tolerance = roundings.LOGPROB * roundings.apart(float(scaled.abs().max()), num_roundings)
        torch.testing.assert_close(found.logprobs[row, : len(response)].double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_a_row_depends_on_its_own_numbers_only(
    tiny_model: Factory,
    logprob_tolerance: Tolerance,
    family: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny_sampling: ModuleType,
) -> None:
    model, prompts, eos = tiny_model(family), tiny_sampling.prompts(3, 12, 7, 5, 12, 20), tuple(range(3, 13))
    table = torch.rand(6, 16, dtype=torch.float64, generator=tiny_sampling.generator(3))
    tiny_sampling.set_uniforms(monkeypatch, table)
    together = tiny_sampling.sample(model, prompts, eos_ids=eos)
    assert len(set(together.response_mask.sum(-1).tolist())) > 2
    atol = logprob_tolerance(model, prompts, together)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    wide = PromptBatch(
        prompt_ids=torch.nn.functional.pad(prompts.prompt_ids, (0, 9)),
        prompt_mask=torch.nn.functional.pad(prompts.prompt_mask, (0, 9)),
    )
    tiny_sampling.set_uniforms(monkeypatch, table[order])
    shuffled = tiny_sampling.sample(model, wide.rows(order), eos_ids=eos)
    assert torch.equal(shuffled.response_ids, together.response_ids[order])
    assert torch.equal(shuffled.ended, together.ended[order])
    for row in range(6):
        tiny_sampling.set_uniforms(monkeypatch, table[row : row + 1])
        alone = tiny_sampling.sample(model, prompts.rows(torch.tensor([row])), eos_ids=eos)
        length = int(together.response_mask[row].sum())
        assert torch.equal(alone.response_ids[0], together.response_ids[row, :length])
        torch.testing.assert_close(alone.logprobs[0], together.logprobs[row, :length], rtol=0, atol=atol)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gemma3"])
def test_leaving_rows_change_nothing_but_the_work(
    tiny_model: Factory,
    logprob_tolerance: Tolerance,
    family: str,
    monkeypatch: pytest.MonkeyPatch,
    tiny_sampling: ModuleType,
) -> None:
    model, prompts = tiny_model(family), tiny_sampling.prompts(3, 12, 7, 5, 12, 20, 4, 4)
    results, work = [], []
    for share in (2.0, 1 / 8):  # never, and as soon as one of eight is over
        monkeypatch.setattr(sampler, "LEAVE_SHARE", share)
        shapes: list[int] = []
        hook = model.register_forward_pre_hook(
            lambda module, args, kwargs, shapes=shapes: shapes.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        results.append(tiny_sampling.sample(model, prompts, eos_ids=tuple(range(3, 13)), max_new_tokens=24))
        hook.remove()
        work.append(sum(shapes))
    assert torch.equal(results[0].response_ids, results[1].response_ids)
    assert torch.equal(results[0].ended, results[1].ended)
    atol = logprob_tolerance(model, prompts, results[0])
    torch.testing.assert_close(results[0].logprobs, results[1].logprobs, rtol=0, atol=atol)
    assert work[1] < 0.8 * work[0]


def test_the_same_generator_state_gives_the_same_bytes(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 12, 7)
    first, again = (tiny_sampling.sample(model, prompts, generator=tiny_sampling.generator(1)) for _ in range(2))
    other = tiny_sampling.sample(model, prompts, generator=tiny_sampling.generator(2))
    assert torch.equal(first.response_ids, again.response_ids) and torch.equal(first.logprobs, again.logprobs)
    assert not torch.equal(first.response_ids, other.response_ids)


def test_the_generator_advances_alike_whenever_rows_end(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    states = []
    for eos_ids in ((), tuple(range(64)), tuple(range(128))):
        generator = tiny_sampling.generator(1)
        tiny_sampling.sample(tiny_model("llama"), tiny_sampling.prompts(3, 5), eos_ids=eos_ids, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[1], states[2])
    assert not torch.equal(states[0], tiny_sampling.generator(1).get_state())


def test_greedy_leaves_the_generator_alone(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    generator = tiny_sampling.generator(1)
    tiny_sampling.sample(tiny_model("llama"), tiny_sampling.prompts(3, 5), temperature=0.0, generator=generator)
    assert torch.equal(generator.get_state(), tiny_sampling.generator(1).get_state())


def test_a_model_in_bfloat16_gives_float32_logprobs(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    found = tiny_sampling.sample(tiny_model("llama").bfloat16(), tiny_sampling.prompts(3, 5))
    assert found.logprobs.dtype == torch.float32 and not found.logprobs.requires_grad


def test_weights_that_are_not_finite_stop_the_run(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[40] = torch.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(GuardStop, match="not finite at row 0, response token 0"):
            tiny_sampling.sample(model, tiny_sampling.prompts(3, 5), temperature=temperature)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_new_tokens": 250}, r"longest prompt \(7\) \+ max_new_tokens \(250\) .* max_position_embeddings \(256\)"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, found 0"),
        ({"min_new_tokens": 17}, r"min_new_tokens \(17\) must be between 0 and max_new_tokens \(16\)"),
        ({"min_new_tokens": -1}, r"min_new_tokens \(-1\)"),
        ({"temperature": -0.1}, "temperature must be 0 .* found -0.1"),
        ({"temperature": float("nan")}, "temperature must be 0 .* found nan"),
        ({"temperature": float("inf")}, "temperature must be 0 .* found inf"),
        ({"stop_strings": ("x",)}, "need a tokenizer"),
    ],
)
def test_arguments_out_of_range_are_refused(
    tiny_model: Factory, changes: dict[str, Any], message: str, tiny_sampling: ModuleType
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_sampling.sample(tiny_model("llama"), tiny_sampling.prompts(3, 7), **changes)


def test_the_last_position_of_a_model_can_be_used(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    found = tiny_sampling.sample(tiny_model("gpt2"), tiny_sampling.prompts(3, 7), max_new_tokens=249)
    assert found.response_ids.shape == (2, 249)


def test_a_model_in_training_mode_is_refused(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"training mode.*model.eval\(\)"):
        tiny_sampling.sample(tiny_model("llama").train(), tiny_sampling.prompts(3))


@pytest.mark.parametrize("mask", [[[False, True]], [[False, False]], [[True, False, True]]])
def test_prompts_that_are_not_right_padded_are_refused(
    tiny_model: Factory, mask: list[list[bool]], tiny_sampling: ModuleType
) -> None:
    prompts = PromptBatch(prompt_ids=torch.ones(1, len(mask[0]), dtype=torch.int64), prompt_mask=torch.tensor(mask))
    with pytest.raises(ValueError, match="right-padded"):
        tiny_sampling.sample(tiny_model("llama"), prompts)
