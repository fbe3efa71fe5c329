"""The memory of a device, by hand."""

from dataclasses import replace

import pytest

from rlhf.plan.memory import RESERVED, UNUSED, Held, Shape, activation_bytes, memory_of
from rlhf.plan.sizes import Sizes

MODEL = Sizes(
    weights=1000, trained=1000, block=100, num_layers=4, num_crossed=4, hidden=10, inner=20, keys=5, vocabulary=50
)
ONE = Shape(
    num_devices=1,
    is_sharded=False,
    has_engine=False,
    checkpoints_activations=False,
    rows=3,
    row_tokens=8,
    response_tokens=4,
    pass_tokens=16,
)


@pytest.mark.parametrize(("hidden", "inner", "counted"), [(1536, 8960, 113e3), (4096, 14336, 226e3)])
def test_the_activations_of_a_token_and_block_are_those_that_were_counted(hidden, inner, counted):
    model = replace(MODEL, num_crossed=1, hidden=hidden, inner=inner)
    assert activation_bytes(model, replace(ONE, pass_tokens=1)) == pytest.approx(counted, rel=0.01)


def test_a_trained_policy_takes_18_bytes_a_weight_and_a_frozen_model_2():
    memory = memory_of(Held(trained=(MODEL,), frozen=(replace(MODEL, trained=0),), shared=0), ONE)
    assert memory.weights + memory.optimizer == 18 * 1000 + 2 * 1000


def test_the_cache_holds_keys_and_values_of_every_token_and_block():
    memory = memory_of(Held(trained=(MODEL,), frozen=(), shared=0), ONE)
    assert memory.cache == 3 * 8 * 4 * (2 * 2 * 5)  # rows, tokens, blocks, keys and values in two bytes


def test_logits_are_kept_at_response_positions_and_a_chunk_of_them_in_float32():
    memory = memory_of(Held(trained=(MODEL,), frozen=(), shared=0), ONE)
    kept = 4 * 16 * (27 * 10 + 8 * 20)
    assert memory.activations == kept + 50 * (2 * 8 + 8 * 8)


def test_with_checkpointing_the_inputs_of_blocks_and_one_block_are_kept():
    shape = replace(ONE, checkpoints_activations=True)
    assert activation_bytes(MODEL, shape) == 4 * 16 * 2 * 10 + 16 * (27 * 10 + 8 * 20)


def test_below_the_lowest_trained_block_nothing_is_kept():
    assert activation_bytes(replace(MODEL, num_crossed=0), ONE) == 0
    assert activation_bytes(replace(MODEL, num_crossed=0), replace(ONE, checkpoints_activations=True)) == 0


def test_shards_divide_weights_and_optimizer_and_a_pass_gathers_two_blocks():
    held = Held(trained=(MODEL,), frozen=(), shared=0)
    whole, shards = memory_of(held, ONE), memory_of(held, replace(ONE, num_devices=4, is_sharded=True))
    assert shards.optimizer == whole.optimizer / 4
    assert shards.weights == whole.weights / 4 + 2 * 2 * 100
    assert shards.cache == whole.cache + 2 * 1000  # decoding needs all weights on every device


def test_the_peak_is_the_larger_phase_with_what_the_device_keeps_for_itself():
    memory = memory_of(Held(trained=(MODEL,), frozen=(), shared=0), ONE)
    assert memory.rollout == RESERVED + UNUSED * (memory.weights + memory.optimizer + memory.cache)
    assert memory.peak == memory.update > memory.rollout


def test_moments_in_8_bits_take_a_quarter_where_they_may_and_never_in_shards():
    held = Held(trained=(replace(MODEL, narrow=600), replace(MODEL, narrow=500)), frozen=(), shared=0)
    both, policy = replace(ONE, narrow_moments=(True, True)), replace(ONE, narrow_moments=(True, False))
    assert memory_of(held, ONE).optimizer == 2 * 16 * 1000
    assert memory_of(held, policy).optimizer == pytest.approx(32_000 - 600 * (8 - 2 * (1 + 4 / 256)))
    assert memory_of(held, both).optimizer == pytest.approx(32_000 - 1100 * (8 - 2 * (1 + 4 / 256)))
    assert memory_of(held, replace(both, is_sharded=True)).optimizer == 32_000
