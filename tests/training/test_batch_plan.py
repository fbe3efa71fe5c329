import pytest

from rlhf.training.batch_plan import BatchPlan

LENGTHS = [5, 9, 2, 7, 7, 3, 1, 8, 4, 6, 2]


def plan(**changes):
    return BatchPlan(LENGTHS, **({"batch_size": 4, "microbatch_tokens": 16, "seed": 3} | changes))


def test_an_epoch_holds_every_item_once_and_its_last_batch_is_the_rest():
    batches = [plan().batch(index) for index in range(3)]
    assert plan().batches_per_epoch == 3
    assert [len(batch) for batch in batches] == [4, 4, 3]
    assert sorted(item for batch in batches for item in batch) == list(range(len(LENGTHS)))


def test_a_batch_follows_from_its_index_alone():
    one, other = plan(), plan()
    forwards = [one.batch(index) for index in range(9)]
    assert [other.batch(index) for index in reversed(range(9))] == forwards[::-1]


def test_epochs_and_seeds_differ():
    whole = plan(batch_size=len(LENGTHS))
    orders = [whole.batch(0), whole.batch(1), plan(batch_size=len(LENGTHS), seed=4).batch(0)]
    assert len({tuple(order) for order in orders}) == 3


def test_the_epoch_is_counted_in_passes_over_the_data():
    assert [plan().epoch(number) for number in (0, 3, 6)] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("budget", [1, 9, 16, 1000])
def test_microbatches_hold_every_item_once_within_the_budget(budget):
    items = [3, 1, 8, 6, 0]
    cut = plan(microbatch_tokens=budget).microbatches(items)
    assert sorted(item for part in cut for item in part) == sorted(items)
    for part in cut:
        assert len(part) == 1 or len(part) * max(LENGTHS[item] for item in part) <= budget


def test_a_plan_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one item"):
        BatchPlan([], batch_size=1, microbatch_tokens=1, seed=0)
