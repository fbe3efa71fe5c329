"""Where rlhf.sampling.sampler ends a response: EOS, lengths, stop strings."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlhf.batches import PromptBatch, Samples

Factory = Callable[..., PreTrainedModel]
Tolerance = Callable[[Any, PromptBatch, Samples], float]


def test_the_eos_is_kept_counted_and_followed_by_zeros(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    eos = tuple(range(3, 13))
    found = tiny_sampling.sample(
        tiny_model("llama"), tiny_sampling.prompts(3, 12, 7, 5, 12, 20), eos_ids=eos, max_new_tokens=12
    )
    lengths = found.response_mask.sum(-1)
    assert bool(found.ended.any()) and not bool(found.ended.all())
    for row, length in enumerate(lengths.tolist()):
        holds_eos = torch.isin(found.response_ids[row, :length], torch.tensor(eos))
        assert holds_eos.tolist() == [False] * (length - 1) + [bool(found.ended[row])]
        assert length == 12 or bool(found.ended[row])
        assert bool(found.response_mask[row, :length].all())
        assert not bool(found.response_ids[row, length:].any()) and not bool(found.logprobs[row, length:].any())


def test_an_eos_at_once_gives_one_token(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    found = tiny_sampling.sample(tiny_model("llama"), tiny_sampling.prompts(3, 5), eos_ids=tuple(range(128)))
    assert found.response_mask.tolist() == [[True], [True]]
    assert found.ended.tolist() == [True, True]


def test_a_response_that_ends_on_its_last_token_is_ended(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 12)
    full = tiny_sampling.sample(model, prompts, temperature=0.0, max_new_tokens=4).response_ids.tolist()
    assert full[1][3] not in full[1][:3] + full[0]
    found = tiny_sampling.sample(model, prompts, temperature=0.0, max_new_tokens=4, eos_ids=(full[1][3],))
    assert bool(found.response_mask.all()) and found.ended.tolist() == [False, True]


def test_a_minimum_length_takes_the_eos_out_of_the_distribution(
    tiny_model: Factory, logprob_tolerance: Tolerance, tiny_sampling: ModuleType
) -> None:
    model, prompts, eos = tiny_model("llama"), tiny_sampling.prompts(3, 5), tuple(range(64))
    found = tiny_sampling.sample(model, prompts, eos_ids=eos, min_new_tokens=3, max_new_tokens=3)
    assert bool((found.response_ids >= 64).all()) and not bool(found.ended.any())
    with torch.no_grad():
        logits = model(input_ids=prompts.prompt_ids[0, :3][None]).logits[0, -1]
    expected = logits[64:].log_softmax(-1)[found.response_ids[0, 0] - 64]
    atol = logprob_tolerance(model, prompts, found)
    torch.testing.assert_close(found.logprobs[0, 0], expected, rtol=0, atol=atol)


def test_a_stop_string_ends_a_row_with_the_token_that_completed_it(
    tiny_model: Factory, tiny_tokenizer: PreTrainedTokenizerFast, tiny_sampling: ModuleType
) -> None:
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 12, 7)
    full = tiny_sampling.sample(model, prompts, temperature=0.0)
    text = tiny_tokenizer.decode(full.response_ids[1, :7])
    stop = text[-3:]
    assert stop not in tiny_tokenizer.decode(full.response_ids[1, :6])
    found = tiny_sampling.sample(
        model, prompts, temperature=0.0, stop_strings=("not there", stop), tokenizer=tiny_tokenizer
    )
    assert found.response_mask[1].sum() == 7 and bool(found.ended[1])
    for row in (0, 2):
        length = int(found.response_mask[row].sum())
        assert torch.equal(found.response_ids[row, :length], full.response_ids[row, :length])
        assert (stop in tiny_tokenizer.decode(full.response_ids[row])) == bool(found.ended[row])
