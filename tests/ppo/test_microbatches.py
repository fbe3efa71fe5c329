"""Tests of rlhf.ppo.microbatches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.ppo.microbatches import cut_microbatches, num_strata_needed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], int, int]:
    num_minibatches = draw(st.integers(1, 4))
    rows = draw(st.integers(1, 10)) * num_minibatches
    lengths = draw(st.lists(st.integers(1, 40), min_size=rows, max_size=rows))
    return lengths, num_minibatches, draw(st.integers(1, 200))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_each_epoch_sees_every_row_once_in_the_same_groups_within_the_budget(case: tuple[list[int], int, int]) -> None:
    lengths, num_minibatches, budget = case
    needed = num_strata_needed(lengths, num_minibatches, budget)
    rows_each = len(lengths) // num_minibatches
    # Another process may need more strata than this one, so any larger number must do too.
    for num_strata in range(needed, rows_each + 1):
        cut = cut_microbatches(lengths, num_minibatches, num_strata, generator())
        groups = {tuple(group.tolist()) for group in cut.all()}
        random = generator(1)
        for _ in range(2):
            epoch = cut.shuffled(random)
            assert [sum(len(group) for group in minibatch) for minibatch in epoch] == [rows_each] * num_minibatches
            assert {tuple(group.tolist()) for minibatch in epoch for group in minibatch} == groups
            rows = [row for minibatch in epoch for group in minibatch for row in group.tolist()]
            assert sorted(rows) == list(range(len(lengths)))
        for group in cut.all():
            assert len(group) == 1 or len(group) * max(lengths[row] for row in group.tolist()) <= budget


def test_no_smaller_number_of_strata_would_fit() -> None:
    lengths = [10] * 8  # 2 minibatches of 4 rows: 1 stratum needs 40 tokens, 2 need 20, 4 need 10
    assert [num_strata_needed(lengths, 2, budget) for budget in (40, 39, 20, 19, 1)] == [1, 2, 2, 4, 4]


def test_packed_rows_need_fewer_strata_however_they_are_dealt() -> None:
    lengths = [2, 2, 2, 2, 2, 2, 10, 10]  # 2 minibatches of 4 rows: a group may get both tens, 2 + 2 + 10 + 10
    assert [num_strata_needed(lengths, 2, budget, packs=True) for budget in (24, 23, 20, 19)] == [1, 2, 2, 3]
    assert [num_strata_needed(lengths, 2, budget) for budget in (40, 39, 20, 19)] == [1, 2, 2, 3]


def test_strata_hold_rows_of_like_length_and_are_dealt_evenly() -> None:
    lengths = [1, 9, 1, 9, 1, 9, 1, 9]
    cut = cut_microbatches(lengths, 2, 2, generator())
    assert [[len(group) for group in stratum] for stratum in cut.strata] == [[2, 2], [2, 2]]
    assert [{lengths[row] for group in stratum for row in group.tolist()} for stratum in cut.strata] == [{1}, {9}]
    for minibatch in cut.shuffled(generator()):
        assert sorted(lengths[row] for group in minibatch for row in group.tolist()) == [1, 1, 9, 9]


def test_epochs_mix_the_groups_anew() -> None:
    cut = cut_microbatches([1] * 4 + [9] * 4, 4, 2, generator())
    random = generator(5)
    epochs = [[tuple(int(group) for group in minibatch) for minibatch in cut.shuffled(random)] for _ in range(5)]
    assert len({frozenset(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("lengths", [[], [3, 3, 3]])
def test_rows_that_cannot_be_dealt_out_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"minibatches \(2\) must divide the rows of a rollout"):
        cut_microbatches(lengths, 2, 1, generator())


def test_rows_that_are_left_out_change_no_other_group() -> None:
    cut = cut_microbatches([1, 2, 3, 4, 5, 6, 7, 8], 2, 2, generator())
    kept = torch.tensor([True, False, True, False, True, True, True, False])
    left = cut.only(kept)
    expected = [[row for row in group.tolist() if kept[row]] for group in cut.all()]
    assert [group.tolist() for group in left.all()] == [group for group in expected if group]
    assert cut.only(torch.ones(8, dtype=torch.bool)).all()[0].equal(cut.all()[0])
    minibatches = left.shuffled(generator(1))
    assert len(minibatches) == 2, "their number is the same on every process, empty or not"
    assert sorted(int(row) for minibatch in minibatches for group in minibatch for row in group) == [0, 2, 4, 5, 6]
    assert all(len(group) for minibatch in minibatches for group in minibatch)
    assert cut.only(torch.zeros(8, dtype=torch.bool)).shuffled(generator()) == [[], []]
