"""Tests of rlhf.sampling.decoder."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from rlhf.batches import PromptBatch
from rlhf.sampling.decoder import Decoder, left_padded

FAMILIES = ["gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"]


def _prompts(*lengths: int, width: int | None = None) -> PromptBatch:
    mask = torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(3, 128, mask.shape, generator=torch.Generator().manual_seed(1))
    return PromptBatch(prompt_ids=ids * mask, prompt_mask=mask)


def test_padding_moves_to_the_left_and_shared_padding_is_dropped() -> None:
    prompts = PromptBatch(
        prompt_ids=torch.tensor([[5, 0, 0, 0], [6, 7, 8, 0]]),
        prompt_mask=torch.tensor([[True, False, False, False], [True, True, True, False]]),
    )
    ids, mask = left_padded(prompts)
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[False, False, True], [True, True, True]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [(5, 5, 5), (3, 11, 6)])
def test_cached_steps_give_the_logits_of_one_forward_without_padding(
    tiny_model: Callable[..., PreTrainedModel], family: str, lengths: tuple[int, ...]
) -> None:
    model, prompts, num_steps = tiny_model(family), _prompts(*lengths, width=13), 12
    tokens = torch.randint(3, 128, (len(lengths), num_steps), generator=torch.Generator().manual_seed(2))
    rows = torch.arange(len(lengths))
    with torch.no_grad():
        decoder = Decoder(model, prompts, num_steps)
        logits = decoder.read_prompts()
        for step in range(num_steps):
            for row, found in zip(rows.tolist(), logits, strict=True):
                ids = torch.cat([prompts.prompt_ids[row, : lengths[row]], tokens[row, :step]])
                expected = model(input_ids=ids[None], use_cache=False).logits[0, -1]
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
            if step == 6:  # the middle row leaves
                rows = rows[[0, 2]]
                decoder.keep_rows(torch.tensor([0, 2]))
            logits = decoder.read_tokens(tokens[rows, step])


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
    tiny_model: Callable[..., PreTrainedModel],
) -> None:
    spy = _Spy(tiny_model("llama"))
    Decoder(spy, _prompts(4, 4), 2).read_prompts()
    assert spy.calls[0]["logits_to_keep"] == 1


def test_prompts_of_one_length_pass_no_mask(tiny_model: Callable[..., PreTrainedModel]) -> None:
    spy = _Spy(tiny_model("llama"))
    Decoder(spy, _prompts(4, 4, width=9), 2).read_prompts()
    assert "attention_mask" not in spy.calls[0] and "position_ids" not in spy.calls[0]
    Decoder(spy, _prompts(4, 3), 2).read_prompts()
    assert spy.calls[1]["position_ids"].tolist() == [[0, 1, 2, 3], [0, 0, 1, 2]]


def test_a_model_that_gives_all_logits_is_cut_to_the_last(tiny_model: Callable[..., PreTrainedModel]) -> None:
    config = tiny_model("llama").config

    class Plain:
        def __init__(self) -> None:
            self.config = config

        def forward(self, input_ids: torch.Tensor, **ignored: Any) -> Any:
            return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, 128).float())

        def __call__(self, **kwargs: Any) -> Any:
            return self.forward(**kwargs)

    prompts = _prompts(4, 2)
    logits = Decoder(Plain(), prompts, 1).read_prompts()
    assert logits.argmax(-1).tolist() == [prompts.prompt_ids[0, 3].item(), prompts.prompt_ids[1, 1].item()]
