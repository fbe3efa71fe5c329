"""Packed rows train as padded ones do: the losses, the statistics and every gradient of SFT and the reward model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.data.records import Example, Pair
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.packing import use_packing
from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.models.pretrained.setup import make_trainable
from rlhf.models.scalar import ScalarModel
from rlhf.reward_model import PreferenceObjective
from rlhf.sft import NextTokenObjective
from rlhf.training.supervised import Objective, switch_dropout

Factory = Callable[..., PreTrainedModel]
TUNINGS: dict[str, dict[str, Any]] = {
    "all weights": {"lora": None, "trainable_layers": None},
    "the last block": {"lora": None, "trainable_layers": 1},
    "an adapter": {
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"},
        "trainable_layers": None,
    },
}


def _text(length: int, first: int) -> tuple[int, ...]:
    return tuple(3 + (first + 7 * place) % 120 for place in range(length))


EXAMPLES = [
    Example(input_ids=_text(length, first), loss_mask=(False, *(place >= skipped for place in range(1, length))))
    for first, (length, skipped) in enumerate([(5, 2), (17, 1), (2, 1), (9, 8), (12, 4)])
]
PAIRS = [Pair(_text(4, 1), _text(11, 2), 0.0), Pair(_text(9, 3), _text(1, 4), 0.5), Pair(_text(6, 5), _text(7, 6), 0.0)]


def _found(objective: Objective, model: PreTrainedModel, *, packs: bool) -> tuple[Tensor, dict[str, float], Any]:
    use_packing(model, "cpu" if packs else "nowhere")
    assert objective.packs is packs
    model.zero_grad()
    items = [3, 0, 2, 1] if isinstance(objective, NextTokenObjective) else [2, 0, 1]
    loss, statistics = objective.loss(items, 10.0)
    loss.backward()
    numbers = {name: float(value) for name, value in statistics.items()}
    return loss.detach(), numbers, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _check_equal(objective: Objective, model: PreTrainedModel, *, at_least: int) -> None:
    """Compare in float32. A gradient sums up some thousand products: 2^-24 times a few dozen of its largest entry."""
    packed, padded = (_found(objective, model, packs=packs) for packs in (True, False))
    torch.testing.assert_close(packed[0], padded[0], rtol=2e-6, atol=0)
    assert packed[1] == pytest.approx(padded[1], rel=1e-5)
    assert packed[2].keys() == padded[2].keys() and len(packed[2]) >= at_least
    for name, expected in padded[2].items():
        torch.testing.assert_close(packed[2][name], expected, rtol=0, atol=5e-6 * float(expected.abs().max()), msg=name)


@pytest.mark.sweep
@pytest.mark.parametrize("tuning", TUNINGS)
@pytest.mark.parametrize("is_tied", [False, True], ids=["untied", "tied"])
def test_sft_has_the_loss_and_gradient_of_padded_rows(tiny_model: Factory, tuning: str, is_tied: bool) -> None:
    model = tiny_model("llama", num_hidden_layers=3, tie_word_embeddings=is_tied)
    use_short_row_attention(model)
    trained = make_trainable(model, "", **TUNINGS[tuning])
    for name, parameter in trained.model.named_parameters():
        if "lora_B" in name:  # at 0, as it begins, the other factor has no gradient
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    switch_dropout(trained.model, on=True)
    _check_equal(NextTokenObjective(trained.model, EXAMPLES, 0), trained.model, at_least=9)


@pytest.fixture
def classifier(tiny_model: Factory, tmp_path: Path) -> PreTrainedModel:
    tiny_model("llama", num_hidden_layers=3).save_pretrained(tmp_path)
    model = load_scalar_lm(str(tmp_path), new_head=True)
    use_short_row_attention(model)
    return model


@pytest.mark.sweep
@pytest.mark.parametrize("trainable_layers", [None, 1])
def test_the_reward_model_has_the_loss_and_gradient_of_padded_pairs(
    classifier: PreTrainedModel, trainable_layers: int | None
) -> None:
    trained = make_trainable(classifier, "", lora=None, trainable_layers=trainable_layers)
    _check_equal(PreferenceObjective(ScalarModel(trained.model), PAIRS, 0, 0.1), trained.model, at_least=9)


@torch.no_grad()
def test_a_packed_score_is_read_at_the_last_token_of_its_row(classifier: PreTrainedModel) -> None:
    model = ScalarModel(classifier)
    objective = PreferenceObjective(model, PAIRS, 0, 0.0)
    assert objective.packs
    chosen, rejected, _ = objective.scores([0, 1, 2])
    for found, texts in ((chosen, [p.chosen_ids for p in PAIRS]), (rejected, [p.rejected_ids for p in PAIRS])):
        alone = [model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0] for ids in texts]
        torch.testing.assert_close(found, torch.stack(alone), rtol=1e-5, atol=1e-5)


def test_a_pair_costs_its_tokens_when_rows_are_packed(classifier: PreTrainedModel) -> None:
    objective = PreferenceObjective(ScalarModel(classifier), PAIRS, 0, 0.0)
    assert objective.lengths() == [15, 10, 13]
    use_packing(classifier, "nowhere")
    assert objective.lengths() == [22, 18, 14]
