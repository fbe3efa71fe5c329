"""Tests of rlhf.sampling.batched."""

import pytest
import torch

from rlhf.batches import PromptBatch, Samples
from rlhf.sampling import batched, sampler
from rlhf.sampling.batched import Decoding, sample_in_batches
from rlhf.sampling.engines.generated import sample_by_generate
from rlhf.sampling.sampler import sample

LENGTHS = (7, 2, 3, 5, 1)
ENDS = tuple(range(2, 40))
"""Many ids, so that responses end early and differ in length."""


def prompts() -> PromptBatch:
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(3, 128, mask.shape, generator=torch.Generator().manual_seed(0))
    return PromptBatch(prompt_ids=ids * mask, prompt_mask=mask)


def decoding(tiny_tokenizer, **changes) -> Decoding:
    drawn = {"max_new_tokens": 6, "temperature": 1.0, "stop_strings": ["e"], "batch_rows": 2, "eos_ids": ENDS}
    return Decoding(**(drawn | changes), tokenizer=tiny_tokenizer)


def numbers() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_batches_are_sampled_one_after_the_other_as_wide_as_they_need(
    tiny_model, tiny_tokenizer, family, monkeypatch
) -> None:
    model, widths = tiny_model(family), []

    def watched(lm, batch, **options):
        widths.append(batch.prompt_ids.shape[1])
        return sample(lm, batch, **options)

    monkeypatch.setattr(batched, "sample", watched)
    found = sample_in_batches(model, prompts(), decoding(tiny_tokenizer), numbers())
    assert widths == [7, 5, 1]
    generator, expected = numbers(), []
    for rows, width in (([0, 1], 7), ([2, 3], 5), ([4], 1)):
        part = prompts().rows(torch.tensor(rows))
        part = PromptBatch(prompt_ids=part.prompt_ids[:, :width], prompt_mask=part.prompt_mask[:, :width])
        expected += sample(
            model, part, max_new_tokens=6, temperature=1.0, eos_ids=ENDS, generator=generator, stop_strings=("e",),
            tokenizer=tiny_tokenizer,
        ).responses  # fmt: skip
    assert found.responses == expected and len({len(ids) for ids in expected}) > 1


@pytest.mark.parametrize(("changes", "expected"), [({}, True), ({"cuda_graphs": "off"}, False)])
def test_the_sampler_is_told_whether_it_may_capture_steps(tiny_model, tiny_tokenizer, monkeypatch, changes, expected):
    told = []

    def watched(lm, batch, *, cuda_graphs, **options):
        told.append(cuda_graphs)
        return sample(lm, batch, **options)

    monkeypatch.setattr(batched, "sample", watched)
    sample_in_batches(tiny_model("llama"), prompts(), decoding(tiny_tokenizer, **changes), numbers())
    assert told == [expected] * 3


def test_forced_tokens_go_with_their_rows(tiny_model, tiny_tokenizer) -> None:
    forced = torch.tensor([4, 0, 2, 0, 0])
    found = sample_in_batches(
        tiny_model("llama"), prompts(), decoding(tiny_tokenizer, stop_strings=[], eos_ids=()), numbers(), forced
    )
    assert [len(ids) for ids in found.responses] == [2, 6, 4, 6, 6]


def test_each_batch_is_reported_when_it_is_drawn(tiny_model, tiny_tokenizer) -> None:
    told: list[int] = []
    sample_in_batches(tiny_model("llama"), prompts(), decoding(tiny_tokenizer), numbers(), on_drawn=told.append)
    assert told == [2, 2, 1]


def test_responses_are_without_padding() -> None:
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    ids = torch.tensor([[5, 6], [7, 0], [0, 0]])
    samples = Samples(response_ids=ids, response_mask=mask, logprobs=torch.zeros(3, 2), ended=mask[:, 1])
    assert samples.responses == [(5, 6), (7,), ()]


@pytest.mark.parametrize("engine", ["native", "generate"])
@pytest.mark.parametrize("forced", [None, torch.tensor([4, 0, 2, 0, 0])], ids=["whole", "forced"])
@pytest.mark.parametrize("ends", [{"stop_strings": []}, {}, {"eos_ids": ()}], ids=["tokens", "both", "texts"])
@pytest.mark.parametrize("stays", [False, True], ids=["leaves", "stays"])
def test_each_response_is_told_once_when_it_is_over(
    tiny_model, tiny_tokenizer, engine, forced, ends, stays, monkeypatch
) -> None:
    """Also where a row that is over stays in the batch for a while."""
    monkeypatch.setattr(sampler, "leave_share", lambda device: 1.0 if stays else 0.0)
    told: list[tuple[int, list[int]]] = []
    chosen = None if engine == "native" else sample_by_generate
    found = sample_in_batches(
        tiny_model("llama"),
        prompts(),
        decoding(tiny_tokenizer, **ends),
        numbers(),
        forced,
        sampler=chosen,
        on_over=lambda *each: told.append(each),
    )
    assert sorted(told) == [(row, list(ids)) for row, ids in enumerate(found.responses)]
    batches = [row // 2 for row, _ in told]
    assert batches == sorted(batches)
    if engine == "native":  # within a batch the shorter one comes first
        for batch in (0, 1):
            lengths = [len(ids) for row, ids in told if row // 2 == batch]
            assert lengths == sorted(lengths)


def test_a_response_is_told_while_others_are_drawn(tiny_model, tiny_tokenizer, monkeypatch) -> None:
    """Between two looks the decoder reads tokens: a short response is told before the long one's last token."""
    seen: list[str] = []
    make = sampler.make_decoder

    def watched(*args, **options):
        decoder = make(*args, **options)
        read = decoder.read_tokens
        monkeypatch.setattr(type(decoder), "read_tokens", lambda self, ids: seen.append("read") or read(ids))
        return decoder

    monkeypatch.setattr(sampler, "make_decoder", watched)
    how = decoding(tiny_tokenizer, batch_rows=5, stop_strings=[])
    found = sample_in_batches(
        tiny_model("llama"), prompts(), how, numbers(), on_over=lambda row, ids: seen.append(f"told {len(ids)}")
    )
    lengths = sorted(len(ids) for ids in found.responses)
    assert lengths[0] < lengths[-1] and seen.index(f"told {lengths[0]}") < len(seen) - 1 - seen[::-1].index("read")
