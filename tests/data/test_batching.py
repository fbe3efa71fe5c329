import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.data.batching import collate_examples, collate_pairs, collate_prompts, epoch_order, token_budget_batches
from rlhf.data.records import Example, Pair, Prompt


def test_batches_hold_as_many_rows_of_like_length_as_the_budget_allows():
    # Sorted: 1 1 2 3 5 9. 3 rows of at most 2 make 6 <= 6; 3 alone, as 2 * 5 > 6; 9 > 6 is a batch of its own.
    assert token_budget_batches([5, 1, 9, 2, 1, 3], 6) == [[1, 4, 3], [5], [0], [2]]


@given(lengths=st.lists(st.integers(1, 50), max_size=60), budget=st.integers(1, 200))
def test_every_row_is_in_one_batch_and_no_batch_of_several_exceeds_the_budget(lengths, budget):
    batches = token_budget_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget


def test_lengths_and_budgets_below_one_are_refused():
    with pytest.raises(ValueError, match="max_tokens must be at least 1, found 0"):
        token_budget_batches([1], 0)
    with pytest.raises(ValueError, match="every length must be at least 1"):
        token_budget_batches([1, 0], 4)


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone():
    first = epoch_order(50, seed=1, epoch=0)
    torch.manual_seed(99)
    assert epoch_order(50, seed=1, epoch=0) == first
    assert sorted(first) == list(range(50))
    assert len({tuple(epoch_order(50, seed=s, epoch=e)) for s in (1, 2) for e in (0, 1)}) == 4
    assert epoch_order(0, seed=1, epoch=0) == []


def test_examples_are_padded_on_the_right():
    batch = collate_examples([Example((5, 6, 7), (False, False, True)), Example((8, 9), (False, True))], pad_id=3)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 3]]
    assert batch.attention_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.loss_mask.tolist() == [[False, False, True], [False, True, False]]


def test_a_token_with_the_id_of_the_pad_is_still_a_token():
    batch = collate_examples([Example((5, 3), (False, True)), Example((5, 3, 3), (False, True, True))], pad_id=3)
    assert batch.attention_mask.sum(1).tolist() == [2, 3]


def test_pairs_keep_their_sides_and_margins():
    batch = collate_pairs([Pair((1, 2), (1, 3, 4), 0.5), Pair((1,), (2,), 0.0)], pad_id=0)
    assert batch.chosen_ids.tolist() == [[1, 2], [1, 0]]
    assert batch.rejected_ids.tolist() == [[1, 3, 4], [2, 0, 0]]
    assert batch.rejected_mask.sum(1).tolist() == [3, 1]
    assert batch.margins.tolist() == [0.5, 0.0]


def test_prompts_are_padded_on_the_right():
    batch = collate_prompts([Prompt("a", (1, 2), "a", {}), Prompt("b", (3,), "b", {})], pad_id=0)
    assert batch.prompt_ids.tolist() == [[1, 2], [3, 0]]
    assert batch.prompt_mask.tolist() == [[True, True], [True, False]]


def test_empty_sequences_and_batches_are_refused():
    with pytest.raises(ValueError, match=r"no empty one, found lengths \[1, 0\]"):
        collate_prompts([Prompt("a", (1,), "a", {}), Prompt("", (), "", {})], pad_id=0)
    with pytest.raises(ValueError, match="at least one sequence"):
        collate_pairs([], pad_id=0)


def test_a_loss_on_the_first_token_is_refused():
    with pytest.raises(ValueError, match="example 0: loss_mask must be"):
        collate_examples([Example((1, 2), (True, True))], pad_id=0)
