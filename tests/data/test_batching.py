import pytest

from rlhf.data.batching import collate_examples, collate_pairs, collate_prompts
from rlhf.data.records import Example, Pair, Prompt


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
