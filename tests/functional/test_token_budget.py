import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.functional.token_budget import token_budget_batches


def test_by_hand():
    # Sorted: 1 (row 2), 3 (row 0), 3 (row 3), 5 (row 1). 3 rows x 3 = 9 <= 9; with 5 it would be 4 x 5 = 20.
    assert token_budget_batches([3, 5, 1, 3], 9) == [[2, 0, 3], [1]]


def test_a_row_above_the_budget_is_a_batch_of_its_own():
    assert token_budget_batches([10, 2, 11], 4) == [[1], [0], [2]]


def test_nothing_gives_nothing():
    assert token_budget_batches([], 4) == []


@given(st.lists(st.integers(1, 50)), st.integers(1, 200))
def test_every_row_is_in_one_batch_and_batches_stay_within_the_budget(lengths, budget):
    batches = token_budget_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget for batch in batches)


def test_packed_rows_are_counted_without_padding_by_hand():
    # Sorted: 1, 3, 3, 5. Together 12 <= 12, and 4 x 5 = 20 <= 2 x 12. With 11 the last one does not fit.
    assert token_budget_batches([3, 5, 1, 3], 12, packs=True) == [[2, 0, 3, 1]]
    assert token_budget_batches([3, 5, 1, 3], 11, packs=True) == [[2, 0, 3], [1]]


def test_the_attention_of_packed_rows_has_no_more_padding_than_another_budget():
    # 1 + 1 + 1 + 9 = 12 tokens, but 4 rows of 9 places; 3 rows of 9 are 27 > 24 as well.
    assert token_budget_batches([1, 9, 1, 1], 12, packs=True) == [[0, 2, 3], [1]]


@given(st.lists(st.integers(1, 50)), st.integers(1, 200))
def test_packed_batches_hold_every_row_once_within_the_budget(lengths, budget):
    batches = token_budget_batches(lengths, budget, packs=True)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or sum(lengths[row] for row in batch) <= budget for batch in batches)
    assert len(batches) <= len(token_budget_batches(lengths, budget))


def test_a_budget_below_one_is_refused():
    with pytest.raises(ValueError, match="max_tokens must be at least 1, found 0"):
        token_budget_batches([1], 0)
