"""Responses that begin with forced tokens."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlhf.batches import PromptBatch, Samples
from rlhf.sampling import sampler

Factory = Callable[..., PreTrainedModel]
Tolerance = Callable[[Any, PromptBatch, Samples], float]


@pytest.mark.parametrize("share", [2.0, 1 / 8])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3"])
def test_forced_tokens_leave_a_row_fewer_to_write_and_change_nothing_else(
    tiny_model: Factory,
    logprob_tolerance: Tolerance,
    family: str,
    share: float,
    monkeypatch: pytest.MonkeyPatch,
    tiny_sampling: ModuleType,
) -> None:
    """Rows that are over leave never, or as soon as one of eight is: one at its limit must not end afterwards."""
    monkeypatch.setattr(sampler, "LEAVE_SHARE", share)
    model, prompts = tiny_model(family), tiny_sampling.prompts(3, 12, 7, 5, 12, 20)
    tiny_sampling.set_uniforms(
        monkeypatch, torch.rand(6, 16, dtype=torch.float64, generator=tiny_sampling.generator(3))
    )
    free = tiny_sampling.sample(model, prompts, eos_ids=tuple(range(3, 9)))
    num_forced = torch.tensor([0, 11, 3, 4, 0, 15])
    found = tiny_sampling.sample(model, prompts, eos_ids=tuple(range(3, 9)), num_forced=num_forced)
    lengths = free.response_mask.sum(-1)
    most = 16 - num_forced
    assert found.response_mask.sum(-1).tolist() == torch.minimum(lengths, most).tolist()
    assert found.ended.tolist() == (free.ended & (lengths <= most)).tolist()
    assert bool((free.ended & (lengths > most)).any()), "a row that would have ended later is cut"
    width = found.response_ids.shape[1]
    assert torch.equal(found.response_ids, free.response_ids[:, :width] * found.response_mask)
    atol = logprob_tolerance(model, prompts, free)
    torch.testing.assert_close(found.logprobs, free.logprobs[:, :width] * found.response_mask, rtol=0, atol=atol)


def test_without_forced_tokens_every_byte_is_as_without_the_argument(
    tiny_model: Factory, tiny_sampling: ModuleType
) -> None:
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 12, 7)
    generators = [tiny_sampling.generator(1), tiny_sampling.generator(1)]
    plain = tiny_sampling.sample(model, prompts, generator=generators[0], eos_ids=(5, 9))
    zeros = tiny_sampling.sample(
        model, prompts, generator=generators[1], eos_ids=(5, 9), num_forced=torch.zeros(3).long()
    )
    for name in ("response_ids", "response_mask", "logprobs", "ended"):
        assert torch.equal(getattr(plain, name), getattr(zeros, name))
    assert torch.equal(*(generator.get_state() for generator in generators))


def test_only_forced_rows_need_fewer_steps(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(14, 15)
    calls: list[int] = []
    hook = model.register_forward_pre_hook(lambda *_, **__: calls.append(1), with_kwargs=True)
    found = tiny_sampling.sample(model, prompts, num_forced=torch.tensor([12, 13]))
    hook.remove()
    assert len(calls) == 4 and found.response_mask.sum(-1).tolist() == [4, 3]


def test_a_stop_string_may_begin_in_the_forced_tokens(
    tiny_model: Factory, tiny_tokenizer: PreTrainedTokenizerFast, tiny_sampling: ModuleType
) -> None:
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(6)
    free = tiny_sampling.sample(model, prompts, temperature=0.0)
    texts = [tiny_tokenizer.decode(ids) for ids in (prompts.prompt_ids[0, -1:], free.response_ids[0, :1])]
    stop = {"stop_strings": ["".join(texts)], "tokenizer": tiny_tokenizer}
    assert not tiny_sampling.sample(model, prompts, temperature=0.0, max_new_tokens=2, **stop).ended.any()
    found = tiny_sampling.sample(model, prompts, temperature=0.0, num_forced=torch.tensor([1]), **stop)
    assert found.ended.tolist() == [True] and found.response_mask.sum() == 1


@pytest.mark.parametrize("num_forced", [[-1, 0], [16, 0], [0, 3]])
def test_forced_tokens_that_leave_nothing_are_refused(
    tiny_model: Factory, num_forced: list[int], tiny_sampling: ModuleType
) -> None:
    with pytest.raises(ValueError, match=r"num_forced \(.*must leave at least 1 token of the prompt"):
        tiny_sampling.sample(tiny_model("llama"), tiny_sampling.prompts(20, 3), num_forced=torch.tensor(num_forced))


def test_forced_tokens_count_once_against_the_positions(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    model = tiny_model("llama", max_position_embeddings=24)
    found = tiny_sampling.sample(model, tiny_sampling.prompts(20), num_forced=torch.tensor([12]))
    assert found.response_mask.sum() == 4
    with pytest.raises(ValueError, match=r"longest prompt \(9\)"):
        tiny_sampling.sample(model, tiny_sampling.prompts(20), num_forced=torch.tensor([11]))
