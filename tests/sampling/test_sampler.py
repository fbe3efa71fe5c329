"""Tests of rlhf.sampling.sampler."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlhf.batches import PromptBatch, Samples
from rlhf.errors import GuardStop
from rlhf.sampling import sampler
from rlhf.sampling.sampler import sample

FAMILIES = ["gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"]
Factory = Callable[..., PreTrainedModel]
Tolerance = Callable[[Any, PromptBatch, Samples], float]


def _prompts(*lengths: int, width: int | None = None) -> PromptBatch:
    mask = torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.stack([torch.randint(3, 128, mask.shape[1:], generator=_generator(row)) for row in range(len(mask))])
    return PromptBatch(prompt_ids=ids * mask, prompt_mask=mask)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _sample(model: Any, prompts: PromptBatch, **changes: Any) -> Samples:
    settings = {"max_new_tokens": 16, "temperature": 1.0, "eos_ids": (), "generator": _generator(7)}
    return sample(model, prompts, **(settings | changes))


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


def _set_uniforms(monkeypatch: pytest.MonkeyPatch, table: torch.Tensor) -> None:
    monkeypatch.setattr(sampler, "_uniforms", lambda num_rows, num_steps, *_: table[:num_rows, :num_steps])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [(4, 4, 4), (3, 12, 7, 20)])
def test_greedy_equals_generate_token_for_token(tiny_model: Factory, family: str, lengths: tuple[int, ...]) -> None:
    model, prompts = tiny_model(family), _prompts(*lengths)
    full = _generate(model, prompts, max_new_tokens=24)
    found = _sample(model, prompts, temperature=0.0, max_new_tokens=24)
    assert torch.equal(found.response_ids, full)
    assert not bool(found.ended.any()) and bool(found.response_mask.all())
    eos = int(full[1, 5])  # a token that ends at least row 1 early
    expected = _generate(model, prompts, max_new_tokens=24, eos_token_id=eos)
    found = _sample(model, prompts, temperature=0.0, max_new_tokens=24, eos_ids=(eos,))
    assert torch.equal(found.response_ids, expected)
    assert found.response_mask[1].sum() <= 6 and bool(found.ended[1])


def test_greedy_equals_generate_with_several_eos_ids_and_a_minimum_length(tiny_model: Factory) -> None:
    model, prompts = tiny_model("llama"), _prompts(3, 9, 5)
    full = _generate(model, prompts, max_new_tokens=20)
    settings = {"max_new_tokens": 20, "min_new_tokens": 6}
    eos = (int(full[0, 2]), int(full[1, 8]))
    expected = _generate(model, prompts, eos_token_id=list(eos), **settings)
    found = _sample(model, prompts, temperature=0.0, eos_ids=eos, **settings)
    assert torch.equal(found.response_ids, expected)
    assert not bool(torch.isin(found.response_ids[:, :6], torch.tensor(eos)).any())
    assert bool(found.ended.any())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_logprobs_equal_those_of_a_fresh_forward(
    tiny_model: Factory, roundings: ModuleType, family: str, temperature: float
) -> None:
    model, prompts = tiny_model(family), _prompts(3, 12, 7, 20)
    found = _sample(model, prompts, temperature=temperature, eos_ids=(5, 9, 30, 31, 77, 101, 102))
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
    tiny_model: Factory, logprob_tolerance: Tolerance, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, eos = tiny_model(family), _prompts(3, 12, 7, 5, 12, 20), tuple(range(3, 13))
    table = torch.rand(6, 16, dtype=torch.float64, generator=_generator(3))
    _set_uniforms(monkeypatch, table)
    together = _sample(model, prompts, eos_ids=eos)
    assert len(set(together.response_mask.sum(-1).tolist())) > 2
    atol = logprob_tolerance(model, prompts, together)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    wide = PromptBatch(
        prompt_ids=torch.nn.functional.pad(prompts.prompt_ids, (0, 9)),
        prompt_mask=torch.nn.functional.pad(prompts.prompt_mask, (0, 9)),
    )
    _set_uniforms(monkeypatch, table[order])
    shuffled = _sample(model, wide.rows(order), eos_ids=eos)
    assert torch.equal(shuffled.response_ids, together.response_ids[order])
    assert torch.equal(shuffled.ended, together.ended[order])
    for row in range(6):
        _set_uniforms(monkeypatch, table[row : row + 1])
        alone = _sample(model, prompts.rows(torch.tensor([row])), eos_ids=eos)
        length = int(together.response_mask[row].sum())
        assert torch.equal(alone.response_ids[0], together.response_ids[row, :length])
        torch.testing.assert_close(alone.logprobs[0], together.logprobs[row, :length], rtol=0, atol=atol)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gemma3"])
def test_leaving_rows_change_nothing_but_the_work(
    tiny_model: Factory, logprob_tolerance: Tolerance, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = tiny_model(family), _prompts(3, 12, 7, 5, 12, 20, 4, 4)
    results, work = [], []
    for share in (2.0, 1 / 8):  # never, and as soon as one of eight is over
        monkeypatch.setattr(sampler, "LEAVE_SHARE", share)
        shapes: list[int] = []
        hook = model.register_forward_pre_hook(
            lambda module, args, kwargs, shapes=shapes: shapes.append(len(kwargs["input_ids"])), with_kwargs=True
        )
        results.append(_sample(model, prompts, eos_ids=tuple(range(3, 13)), max_new_tokens=24))
        hook.remove()
        work.append(sum(shapes))
    assert torch.equal(results[0].response_ids, results[1].response_ids)
    assert torch.equal(results[0].ended, results[1].ended)
    atol = logprob_tolerance(model, prompts, results[0])
    torch.testing.assert_close(results[0].logprobs, results[1].logprobs, rtol=0, atol=atol)
    assert work[1] < 0.8 * work[0]


def test_the_same_generator_state_gives_the_same_bytes(tiny_model: Factory) -> None:
    model, prompts = tiny_model("llama"), _prompts(3, 12, 7)
    first, again = (_sample(model, prompts, generator=_generator(1)) for _ in range(2))
    other = _sample(model, prompts, generator=_generator(2))
    assert torch.equal(first.response_ids, again.response_ids) and torch.equal(first.logprobs, again.logprobs)
    assert not torch.equal(first.response_ids, other.response_ids)


def test_the_generator_advances_alike_whenever_rows_end(tiny_model: Factory) -> None:
    states = []
    for eos_ids in ((), tuple(range(64)), tuple(range(128))):
        generator = _generator(1)
        _sample(tiny_model("llama"), _prompts(3, 5), eos_ids=eos_ids, generator=generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[1], states[2])
    assert not torch.equal(states[0], _generator(1).get_state())


def test_greedy_leaves_the_generator_alone(tiny_model: Factory) -> None:
    generator = _generator(1)
    _sample(tiny_model("llama"), _prompts(3, 5), temperature=0.0, generator=generator)
    assert torch.equal(generator.get_state(), _generator(1).get_state())


def test_the_eos_is_kept_counted_and_followed_by_zeros(tiny_model: Factory) -> None:
    eos = tuple(range(3, 13))
    found = _sample(tiny_model("llama"), _prompts(3, 12, 7, 5, 12, 20), eos_ids=eos, max_new_tokens=12)
    lengths = found.response_mask.sum(-1)
    assert bool(found.ended.any()) and not bool(found.ended.all())
    for row, length in enumerate(lengths.tolist()):
        holds_eos = torch.isin(found.response_ids[row, :length], torch.tensor(eos))
        assert holds_eos.tolist() == [False] * (length - 1) + [bool(found.ended[row])]
        assert length == 12 or bool(found.ended[row])
        assert bool(found.response_mask[row, :length].all())
        assert not bool(found.response_ids[row, length:].any()) and not bool(found.logprobs[row, length:].any())


def test_an_eos_at_once_gives_one_token(tiny_model: Factory) -> None:
    found = _sample(tiny_model("llama"), _prompts(3, 5), eos_ids=tuple(range(128)))
    assert found.response_mask.tolist() == [[True], [True]]
    assert found.ended.tolist() == [True, True]


def test_a_response_that_ends_on_its_last_token_is_ended(tiny_model: Factory) -> None:
    model, prompts = tiny_model("llama"), _prompts(3, 12)
    full = _sample(model, prompts, temperature=0.0, max_new_tokens=4).response_ids.tolist()
    assert full[1][3] not in full[1][:3] + full[0]
    found = _sample(model, prompts, temperature=0.0, max_new_tokens=4, eos_ids=(full[1][3],))
    assert bool(found.response_mask.all()) and found.ended.tolist() == [False, True]


def test_a_minimum_length_takes_the_eos_out_of_the_distribution(
    tiny_model: Factory, logprob_tolerance: Tolerance
) -> None:
    model, prompts, eos = tiny_model("llama"), _prompts(3, 5), tuple(range(64))
    found = _sample(model, prompts, eos_ids=eos, min_new_tokens=3, max_new_tokens=3)
    assert bool((found.response_ids >= 64).all()) and not bool(found.ended.any())
    with torch.no_grad():
        logits = model(input_ids=prompts.prompt_ids[0, :3][None]).logits[0, -1]
    expected = logits[64:].log_softmax(-1)[found.response_ids[0, 0] - 64]
    atol = logprob_tolerance(model, prompts, found)
    torch.testing.assert_close(found.logprobs[0, 0], expected, rtol=0, atol=atol)


def test_a_stop_string_ends_a_row_with_the_token_that_completed_it(
    tiny_model: Factory, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model, prompts = tiny_model("llama"), _prompts(3, 12, 7)
    full = _sample(model, prompts, temperature=0.0)
    text = tiny_tokenizer.decode(full.response_ids[1, :7])
    stop = text[-3:]
    assert stop not in tiny_tokenizer.decode(full.response_ids[1, :6])
    found = _sample(model, prompts, temperature=0.0, stop_strings=("not there", stop), tokenizer=tiny_tokenizer)
    assert found.response_mask[1].sum() == 7 and bool(found.ended[1])
    for row in (0, 2):
        length = int(found.response_mask[row].sum())
        assert torch.equal(found.response_ids[row, :length], full.response_ids[row, :length])
        assert (stop in tiny_tokenizer.decode(full.response_ids[row])) == bool(found.ended[row])


def test_a_model_in_bfloat16_gives_float32_logprobs(tiny_model: Factory) -> None:
    found = _sample(tiny_model("llama").bfloat16(), _prompts(3, 5))
    assert found.logprobs.dtype == torch.float32 and not found.logprobs.requires_grad


def test_weights_that_are_not_finite_stop_the_run(tiny_model: Factory) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[40] = torch.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(GuardStop, match="not finite at row 0, response token 0"):
            _sample(model, _prompts(3, 5), temperature=temperature)


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
def test_arguments_out_of_range_are_refused(tiny_model: Factory, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _sample(tiny_model("llama"), _prompts(3, 7), **changes)


def test_the_last_position_of_a_model_can_be_used(tiny_model: Factory) -> None:
    found = _sample(tiny_model("gpt2"), _prompts(3, 7), max_new_tokens=249)
    assert found.response_ids.shape == (2, 249)


def test_a_model_in_training_mode_is_refused(tiny_model: Factory) -> None:
    with pytest.raises(ValueError, match=r"training mode.*model.eval\(\)"):
        _sample(tiny_model("llama").train(), _prompts(3))


@pytest.mark.parametrize("mask", [[[False, True]], [[False, False]], [[True, False, True]]])
def test_prompts_that_are_not_right_padded_are_refused(tiny_model: Factory, mask: list[list[bool]]) -> None:
    prompts = PromptBatch(prompt_ids=torch.ones(1, len(mask[0]), dtype=torch.int64), prompt_mask=torch.tensor(mask))
    with pytest.raises(ValueError, match="right-padded"):
        _sample(tiny_model("llama"), prompts)


@pytest.mark.parametrize("share", [2.0, 1 / 8])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_forced_tokens_leave_a_row_fewer_to_write_and_change_nothing_else(
    tiny_model: Factory, logprob_tolerance: Tolerance, family: str, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are over leave never, or as soon as one of eight is: one at its limit must not end afterwards."""
    monkeypatch.setattr(sampler, "LEAVE_SHARE", share)
    model, prompts = tiny_model(family), _prompts(3, 12, 7, 5, 12, 20)
    _set_uniforms(monkeypatch, torch.rand(6, 16, dtype=torch.float64, generator=_generator(3)))
    free = _sample(model, prompts, eos_ids=tuple(range(3, 9)))
    num_forced = torch.tensor([0, 11, 3, 4, 0, 15])
    found = _sample(model, prompts, eos_ids=tuple(range(3, 9)), num_forced=num_forced)
    lengths = free.response_mask.sum(-1)
    most = 16 - num_forced
    assert found.response_mask.sum(-1).tolist() == torch.minimum(lengths, most).tolist()
    assert found.ended.tolist() == (free.ended & (lengths <= most)).tolist()
    assert bool((free.ended & (lengths > most)).any()), "a row that would have ended later is cut"
    width = found.response_ids.shape[1]
    assert torch.equal(found.response_ids, free.response_ids[:, :width] * found.response_mask)
    atol = logprob_tolerance(model, prompts, free)
    torch.testing.assert_close(found.logprobs, free.logprobs[:, :width] * found.response_mask, rtol=0, atol=atol)


def test_without_forced_tokens_every_byte_is_as_without_the_argument(tiny_model: Factory) -> None:
    model, prompts = tiny_model("llama"), _prompts(3, 12, 7)
    generators = [_generator(1), _generator(1)]
    plain = _sample(model, prompts, generator=generators[0], eos_ids=(5, 9))
    zeros = _sample(model, prompts, generator=generators[1], eos_ids=(5, 9), num_forced=torch.zeros(3).long())
    for name in ("response_ids", "response_mask", "logprobs", "ended"):
        assert torch.equal(getattr(plain, name), getattr(zeros, name))
    assert torch.equal(*(generator.get_state() for generator in generators))


def test_only_forced_rows_need_fewer_steps(tiny_model: Factory) -> None:
    model, prompts = tiny_model("llama"), _prompts(14, 15)
    calls: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_, **__: calls.append(1), with_kwargs=True)
    found = _sample(model, prompts, num_forced=torch.tensor([12, 13]))
    hook.remove()
    assert len(calls) == 4 and found.response_mask.sum(-1).tolist() == [4, 3]


def test_a_stop_string_may_begin_in_the_forced_tokens(
    tiny_model: Factory, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model, prompts = tiny_model("llama"), _prompts(6)
    free = _sample(model, prompts, temperature=0.0)
    texts = [tiny_tokenizer.decode(ids) for ids in (prompts.prompt_ids[0, -1:], free.response_ids[0, :1])]
    stop = {"stop_strings": ["".join(texts)], "tokenizer": tiny_tokenizer}
    assert not _sample(model, prompts, temperature=0.0, max_new_tokens=2, **stop).ended.any()
    found = _sample(model, prompts, temperature=0.0, num_forced=torch.tensor([1]), **stop)
    assert found.ended.tolist() == [True] and found.response_mask.sum() == 1


@pytest.mark.parametrize("num_forced", [[-1, 0], [16, 0], [0, 3]])
def test_forced_tokens_that_leave_nothing_are_refused(tiny_model: Factory, num_forced: list[int]) -> None:
    with pytest.raises(ValueError, match=r"num_forced \(.*must leave at least 1 token of the prompt"):
        _sample(tiny_model("llama"), _prompts(20, 3), num_forced=torch.tensor(num_forced))


def test_forced_tokens_count_once_against_the_positions(tiny_model: Factory) -> None:
    model = tiny_model("llama", max_position_embeddings=24)
    found = _sample(model, _prompts(20), num_forced=torch.tensor([12]))
    assert found.response_mask.sum() == 4
    with pytest.raises(ValueError, match=r"longest prompt \(9\)"):
        _sample(model, _prompts(20), num_forced=torch.tensor([11]))
