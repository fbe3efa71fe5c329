"""Tests of rlhf.sampling.decoder."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from rlhf.batches import PromptBatch
from rlhf.sampling.decoder import Decoder, distinct_prompts, left_padded

Factory = Callable[..., PreTrainedModel]


def test_padding_moves_to_the_left_and_shared_padding_is_dropped() -> None:
    prompts = PromptBatch(
        prompt_ids=torch.tensor([[5, 0, 0, 0], [6, 7, 8, 0]]),
        prompt_mask=torch.tensor([[True, False, False, False], [True, True, True, False]]),
    )
    ids, mask = left_padded(prompts)
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[False, False, True], [True, True, True]]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("lengths", [(5, 5, 5), (3, 11, 6)])
def test_cached_steps_give_the_logits_of_one_forward_without_padding(
    tiny_model: Factory, tiny_sampling: ModuleType, roundings: ModuleType, family: str, lengths: tuple[int, ...]
) -> None:
    model, prompts, num_steps = tiny_model(family), tiny_sampling.prompts(*lengths, width=13), 12
    tokens = torch.randint(3, 128, (len(lengths), num_steps), generator=torch.Generator().manual_seed(2))
    rows = torch.arange(len(lengths))
    with torch.no_grad():
        decoder = Decoder(model, prompts, num_steps)
        logits = decoder.read_prompts()
        for step in range(num_steps):
            for row, found in zip(rows.tolist(), logits, strict=True):
                ids = torch.cat([prompts.prompt_ids[row, : lengths[row]], tokens[row, :step]])
                expected = model(input_ids=ids[None], use_cache=False).logits[0, -1]
                atol = roundings.apart(float(expected.abs().max()), roundings.of_a_pass(model.config, len(ids)))
                torch.testing.assert_close(found, expected, rtol=0, atol=atol)
            if step == 6:  # the middle row leaves
                rows = rows[[0, 2]]
                decoder.keep_rows(torch.tensor([0, 2]))
            logits = decoder.read_tokens(tokens[rows, step])


def test_distinct_prompts_are_found_in_the_order_in_which_they_first_appear() -> None:
    prompts = PromptBatch(
        prompt_ids=torch.tensor([[5, 6, 0], [7, 0, 0], [5, 6, 0], [5, 6, 7], [7, 0, 0]]),
        prompt_mask=torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]]).bool(),
    )
    distinct, sources = distinct_prompts(prompts)
    assert distinct.prompt_ids.tolist() == [[5, 6, 0], [7, 0, 0], [5, 6, 7]]
    assert distinct.prompt_mask.sum(1).tolist() == [2, 1, 3]
    assert sources.tolist() == [0, 1, 0, 2, 1]


def test_what_stands_in_the_padding_makes_no_prompt_distinct_and_a_real_zero_does() -> None:
    mask = torch.tensor([[True, True, False], [True, True, False], [True, True, True]])
    prompts = PromptBatch(prompt_ids=torch.tensor([[5, 6, 9], [5, 6, 8], [5, 6, 0]]), prompt_mask=mask)
    assert distinct_prompts(prompts)[1].tolist() == [0, 0, 1]


def test_prompts_that_all_differ_are_passed_on_as_they_are(tiny_sampling: ModuleType) -> None:
    prompts = tiny_sampling.prompts(3, 4, 5)
    distinct, sources = distinct_prompts(prompts)
    assert distinct is prompts and sources.tolist() == [0, 1, 2]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("lengths", [(5, 5), (3, 11)])
def test_equal_prompts_are_read_once_and_then_go_on_apart(
    tiny_model: Factory, tiny_sampling: ModuleType, roundings: ModuleType, family: str, lengths: tuple[int, ...]
) -> None:
    model, prompts = _Spy(tiny_model(family)), tiny_sampling.prompts(*lengths, width=12)
    order = torch.tensor([1, 0, 1, 1, 0])
    repeated = prompts.rows(order)
    tokens = torch.randint(3, 128, (5, 10), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        decoder = Decoder(model, repeated, 10)
        logits = decoder.read_prompts()
        assert len(model.calls[0]["input_ids"]) == 2
        for step in range(10):
            for row, found in enumerate(logits):
                ids = torch.cat([prompts.prompt_ids[order[row], : lengths[order[row]]], tokens[row, :step]])
                expected = model(input_ids=ids[None], use_cache=False).logits[0, -1]
                atol = roundings.apart(float(expected.abs().max()), roundings.of_a_pass(model.config, len(ids)))
                torch.testing.assert_close(found, expected, rtol=0, atol=atol)
            if step == 4:  # rows leave, and change places
                index = torch.tensor([4, 2, 0])
                decoder.keep_rows(index)
                order, tokens = order[index], tokens[index]
            logits = decoder.read_tokens(tokens[:, step])


class _Spy:
    """Passes calls on to a model and notes the keyword arguments."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.config, self._model, self.calls = model.config, model, []  # type: ignore[var-annotated]

    def get_base_model(self) -> PreTrainedModel:
        return self._model

    def __call__(self, **kwargs: Any) -> Any:
        self.calls.append(kwargs)
        return self._model(**kwargs)


def test_only_the_last_logits_are_computed_also_inside_an_adapter_model(
    tiny_model: Factory,
    tiny_sampling: ModuleType,
) -> None:
    spy = _Spy(tiny_model("llama"))
    Decoder(spy, tiny_sampling.prompts(4, 4), 2).read_prompts()
    assert spy.calls[0]["logits_to_keep"] == 1


def test_prompts_of_one_length_pass_no_mask(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    spy = _Spy(tiny_model("llama"))
    Decoder(spy, tiny_sampling.prompts(4, 4, width=9), 2).read_prompts()
    assert "attention_mask" not in spy.calls[0] and "position_ids" not in spy.calls[0]
    Decoder(spy, tiny_sampling.prompts(4, 3), 2).read_prompts()
    assert spy.calls[1]["position_ids"].tolist() == [[0, 1, 2, 3], [0, 0, 1, 2]]


def test_a_model_that_gives_all_logits_is_cut_to_the_last(tiny_model: Factory, tiny_sampling: ModuleType) -> None:
    config = tiny_model("llama").config

    class Plain:
        def __init__(self) -> None:
            self.config = config

        def forward(self, input_ids: torch.Tensor, **ignored: Any) -> Any:
            return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, 128).float())

        def __call__(self, **kwargs: Any) -> Any:
            return self.forward(**kwargs)

    prompts = tiny_sampling.prompts(4, 2)
    logits = Decoder(Plain(), prompts, 1).read_prompts()
    assert logits.argmax(-1).tolist() == [prompts.prompt_ids[0, 3].item(), prompts.prompt_ids[1, 1].item()]
