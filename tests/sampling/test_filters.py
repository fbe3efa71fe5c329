"""Filters leave what transformers' own leave, and the sampler draws from that."""

import pytest
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rlhf.batches import PromptBatch, join
from rlhf.sampling.filters import Filters
from rlhf.sampling.sampler import sample

ALL = {"top_k": 20, "top_p": 0.8, "min_p": 0.05, "repetition_penalty": 1.3}
CASES = [{name: value} for name, value in ALL.items()] + [ALL, {**ALL, "top_p": 1e-6}, {"top_k": 10**6}]


def _theirs(settings, temperature):
    makers = {"repetition_penalty": RepetitionPenaltyLogitsProcessor, "temperature": TemperatureLogitsWarper}
    makers |= {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}
    given = {**settings, "temperature": temperature}
    return LogitsProcessorList([make(given[name]) for name, make in makers.items() if name in given])


@pytest.mark.parametrize("settings", CASES)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_what_is_left_is_what_transformers_leaves(settings, temperature) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(6, 100, generator=generator)
    ids = torch.randint(0, 100, (6, 9), generator=generator)
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, ids, True)
    ours = (Filters(**settings).filtered(logits, seen, temperature) / temperature).softmax(-1)
    theirs = _theirs(settings, temperature)(ids, logits.clone()).softmax(-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert torch.equal(ours == 0, theirs == 0)


def test_filters_that_filter_nothing_change_nothing() -> None:
    logits, seen = torch.randn(3, 50, generator=torch.Generator().manual_seed(1)), torch.ones(3, 50, dtype=torch.bool)
    assert torch.equal(Filters().filtered(logits, seen, 0.7), logits)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@torch.no_grad()
def test_the_sampler_draws_what_a_slow_loop_allows(tiny_model, family) -> None:
    model, filters = tiny_model(family), Filters(top_k=5, top_p=0.9, repetition_penalty=1.2)
    generator = torch.Generator().manual_seed(2)
    prompts = PromptBatch(
        prompt_ids=torch.randint(4, 128, (3, 6), generator=generator),
        prompt_mask=torch.arange(6) < torch.tensor([[6], [3], [5]]),
    )
    samples = sample(
        model, prompts, max_new_tokens=8, temperature=0.8, eos_ids=(2,), generator=generator, filters=filters
    )
    sequences = join(prompts.prompt_ids, prompts.prompt_mask, samples.response_ids, samples.response_mask)
    for row in range(3):
        first = int(prompts.prompt_mask[row].sum())
        for step in range(int(samples.response_mask[row].sum())):
            ids = sequences.input_ids[row : row + 1, : first + step]
            settings = {"top_k": 5, "top_p": 0.9, "repetition_penalty": 1.2}
            logprobs = _theirs(settings, 0.8)(ids, model(ids).logits[:, -1].clone()).log_softmax(-1)[0]
            drawn = int(samples.response_ids[row, step])
            assert float(logprobs[drawn]) == pytest.approx(float(samples.logprobs[row, step]), abs=1e-4)
