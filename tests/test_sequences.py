"""Prompts and responses become right-padded sequences without a gap."""

import pytest
import torch

from rlhf.batches import join


def _masks(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width)[None] < torch.tensor(lengths)[:, None]


def test_unequal_prompts_and_responses_join_without_a_gap():
    prompts = torch.tensor([[11, 12, 13], [21, 99, 99]])
    responses = torch.tensor([[14, 15], [22, 98]])
    joined = join(prompts, _masks([3, 1], 3), responses, _masks([2, 1], 2))
    assert joined.input_ids.tolist() == [[11, 12, 13, 14, 15], [21, 22, 0, 0, 0]]
    assert joined.lengths.tolist() == [5, 2]
    assert list(zip(joined.rows.tolist(), joined.steps.tolist(), joined.columns.tolist(), strict=True)) == [
        (0, 0, 3),
        (0, 1, 4),
        (1, 0, 1),
    ]
    assert joined.targets.tolist() == [14, 15, 22]
    assert joined.predicting(joined.input_ids[..., None]).squeeze(-1).tolist() == [13, 14, 21]
    assert joined.placed(torch.tensor([1.0, 2.0, 3.0]), 2).tolist() == [[1.0, 2.0], [3.0, 0.0]]


def test_the_width_is_the_longest_real_length():
    ids = torch.ones(1, 9, dtype=torch.long)
    joined = join(ids, _masks([2], 9), ids, _masks([1], 9))
    assert joined.input_ids.shape == (1, 3)


@pytest.mark.parametrize("width", [0, 4])
def test_empty_responses_leave_the_prompts(width):
    prompts, nothing = torch.tensor([[5, 6]]), torch.zeros(1, width, dtype=torch.long)
    joined = join(prompts, _masks([2], 2), nothing, _masks([0], width))
    assert joined.input_ids.tolist() == [[5, 6]]
    assert joined.placed(torch.zeros(0), width).shape == (1, width)


def test_an_empty_prompt_is_refused():
    ids = torch.ones(2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="every prompt needs at least one token"):
        join(ids, _masks([2, 0], 2), ids, _masks([1, 1], 2))


@pytest.mark.parametrize("gap", [[False, True], [True, False, True]])
def test_left_padding_and_gaps_are_refused(gap):
    ids = torch.ones(1, len(gap), dtype=torch.long)
    whole = _masks([len(gap)], len(gap))
    with pytest.raises(ValueError, match="prompt_mask must be True from the left"):
        join(ids, torch.tensor([gap]), ids, whole)
    with pytest.raises(ValueError, match="response_mask must be True from the left"):
        join(ids, whole, ids, torch.tensor([gap]))


def test_forced_tokens_are_read_and_not_predicted() -> None:
    prompts, responses = torch.tensor([[5, 6], [7, 0]]), torch.tensor([[11, 12, 13], [14, 15, 0]])
    forced = _masks([2, 1], 3)
    joined = join(prompts, _masks([2, 1], 2), responses, _masks([3, 2], 3) & ~forced, forced)
    assert joined.input_ids.tolist() == [[5, 6, 11, 12, 13], [7, 14, 15, 0, 0]]
    assert joined.lengths.tolist() == [5, 3]
    assert joined.targets.tolist() == [13, 15]
    assert joined.steps.tolist() == [2, 1], "their places on the axis of the whole response"
    hidden = torch.arange(10).view(2, 5, 1)
    assert joined.predicting(hidden).flatten().tolist() == [3, 6], "the last forced token predicts the first emitted"


@pytest.mark.parametrize("forced", [[[False, True]], [[True, False]]])
def test_forced_tokens_come_before_emitted_ones(forced: list[list[bool]]) -> None:
    ids, whole = torch.tensor([[5, 6]]), torch.tensor([[True, True]])
    emitted = torch.tensor([[True, False]])
    with pytest.raises(ValueError, match="forced tokens must come before"):
        join(ids, whole, ids, emitted, torch.tensor(forced))
