"""Token ids in four bytes each, which stand for a tuple of integers wherever one did."""

import tracemalloc

import pytest

from rlhf.data.batching import padded
from rlhf.data.records import Row
from rlhf.data.token_ids import TokenIds
from rlhf.data.tokenization import prepare_examples, prepare_pairs


def test_they_stand_for_a_tuple() -> None:
    ids, plain = TokenIds([5, 300, 7, 2**31 - 1]), (5, 300, 7, 2**31 - 1)
    assert ids == plain and plain == ids and ids == TokenIds(plain) and ids != TokenIds(plain[:2])
    assert hash(ids) == hash(plain) and repr(ids) == repr(plain) and list(ids) == list(plain)
    assert ids[1] == 300 and ids[-2:] == plain[-2:] and isinstance(ids[:2], TokenIds) and len(ids) == 4
    assert padded([ids, TokenIds([1])], 0)[0].tolist() == [[*plain], [1, 0, 0, 0]]


def test_every_id_is_shown_however_many_there_are() -> None:
    assert repr(TokenIds(range(5000))) == repr(tuple(range(5000)))  # digests of records are made of it


def test_an_id_beyond_31_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        TokenIds([2**31])


@pytest.mark.parametrize("prepare", [prepare_examples, prepare_pairs])
def test_prepared_rows_take_few_bytes_a_token(tiny_tokenizer, prepare) -> None:
    answers = (
        {"completion": "b" * 3000} if prepare is prepare_examples else {"chosen": "b" * 1500, "rejected": "c" * 1500}
    )
    rows = [Row({"prompt": "a", **answers}, f"row {number}") for number in range(20)]
    prepare(rows[:1], tiny_tokenizer, max_length=10_000)
    tracemalloc.start()
    items = prepare(rows, tiny_tokenizer, max_length=10_000).items
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(items) == 20
    assert taken / (20 * 3000) < 14  # four for the id, eight for a pointer of the loss mask
