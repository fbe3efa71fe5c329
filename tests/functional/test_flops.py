from rlhf.functional.flops import (
    Matrices,
    ModelMatrices,
    Work,
    backward_flops,
    causal_work,
    forward_flops,
    product_flops,
    sampling_work,
)

NOTHING = Matrices(trunk=0, scores=0, head=0)


def test_a_sequence_by_hand():
    # Lengths 3 and 1: 4 tokens, which attend to (1 + 2 + 3) + 1 tokens.
    assert causal_work([3, 1], 2) == Work(tokens=4, pairs=7, predictions=2)


def test_products_by_hand():
    # 2 x (10 weights x 4 tokens + 5 weights x 2 predictions) + 4 x 3 query entries x 7 pairs = 100 + 84.
    assert product_flops(Matrices(trunk=10, scores=3, head=5), causal_work([3, 1], 2)) == 184.0


def test_reading_token_by_token_with_a_cache_is_the_same_work():
    steps = [Work(tokens=1, pairs=place + 1, predictions=1) for place in range(9)]
    total = Work(tokens=0, pairs=0, predictions=0)
    for step in steps:
        total += step
    assert total == causal_work([9], 9)


def test_sampling_reads_equal_prompts_once_and_the_last_token_never():
    # Two responses, 3 tokens and 1, to one prompt of 2: its pairs are 1 + 2, then 2 steps see 3 and 4 tokens.
    assert sampling_work([2], [2, 2], [3, 1]) == Work(tokens=4, pairs=10, predictions=3)
    # A response alone is a pass over all but its last token.
    assert sampling_work([5], [5], [4]) == Work(tokens=8, pairs=causal_work([8], 0).pairs, predictions=4)


def test_a_pass_from_the_states_of_frozen_blocks_multiplies_what_is_above_and_the_whole_head():
    used, crossed = Matrices(trunk=10, scores=6, head=5), Matrices(trunk=4, scores=2, head=5)
    model = ModelMatrices(used=used, crossed=crossed, trained=NOTHING)
    assert model.above_frozen.used == Matrices(trunk=4, scores=2, head=5)
    assert backward_flops(model.above_frozen, causal_work([3], 1)) == backward_flops(model, causal_work([3], 1))


def test_a_model_trained_in_full_costs_twice_as_much_backward_as_forward():
    every = Matrices(trunk=100, scores=7, head=11)
    model = ModelMatrices(used=every, crossed=every, trained=every)
    work = causal_work([5, 8], 6)
    assert backward_flops(model, work) == 2 * forward_flops(model, work)


def test_frozen_weights_that_a_gradient_crosses_cost_one_product():
    # Matrices without scores: 10 used, 8 of them crossed, 3 of these trained; 4 tokens.
    model = ModelMatrices(
        used=Matrices(trunk=10, scores=0, head=0),
        crossed=Matrices(trunk=8, scores=0, head=0),
        trained=Matrices(trunk=3, scores=0, head=0),
    )
    work = causal_work([4], 0)
    assert forward_flops(model, work) == 2 * 10 * 4
    assert backward_flops(model, work) == 2 * 8 * 4 + 2 * 3 * 4


def test_a_frozen_model_has_no_backward_pass():
    model = ModelMatrices(used=Matrices(trunk=10, scores=2, head=3), crossed=NOTHING, trained=NOTHING)
    assert backward_flops(model, causal_work([4], 2)) == 0
