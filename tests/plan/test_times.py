"""The times of a step, by hand, and at the one size for which figures were published."""

import pytest

from rlhf.functional.flops import Matrices, ModelMatrices
from rlhf.plan.hardware import DEVICES, hardware_of
from rlhf.plan.memory import Held, Shape
from rlhf.plan.sizes import Sizes
from rlhf.plan.times import Step, communication_of, work_of

NOTHING = Matrices(trunk=0, scores=0, head=0)
FREE = ModelMatrices(used=NOTHING, crossed=NOTHING, trained=NOTHING)
"""A model whose products cost nothing: what remains is the moving of bytes."""
EIGHT = Sizes(
    weights=8_030_000_000,
    trained=8_030_000_000,
    block=218_000_000,
    num_layers=32,
    num_crossed=32,
    hidden=4096,
    inner=14336,
    keys=1024,
    vocabulary=128256,
)
HELD = Held(trained=(EIGHT,), frozen=(), shared=EIGHT.trained)
NO_FLOPS = dict.fromkeys(("generation", "reward", "reference", "forward", "backward"), 0.0)


def shape(**changes):
    given = {"num_devices": 1, "is_sharded": False, "has_engine": False, "checkpoints_activations": False}
    return Shape(**(given | {"rows": 1, "row_tokens": 101, "response_tokens": 100, "pass_tokens": 101} | changes))


def taken(hardware="1xH100-80GB", flops=NO_FLOPS, **changes):
    step = Step(episodes=1, microbatches=2, epochs=3, minibatches=1)
    machine, held = hardware_of(hardware), shape(**changes)
    return work_of(flops, HELD, FREE, held, step).times(machine.device, communication_of(HELD, held, step, machine))


def test_an_8b_model_decodes_a_token_in_the_published_times():
    assert taken().generation / 100 == pytest.approx(8.4e-3, rel=0.03)
    assert taken(has_engine=True).generation / 100 == pytest.approx(5.1e-3, rel=0.03)


def test_passes_take_their_operations_over_a_share_of_the_rate():
    flops = {**NO_FLOPS, "forward": 1e15, "backward": 2e15, "reference": 4e15}
    more, without = taken(flops=flops), taken()
    device = DEVICES["H100-80GB"]
    rate, share = device.flops, device.efficiency
    assert more.training - without.training == pytest.approx(3e15 / (share.training * rate))
    assert more.scoring == pytest.approx(4e15 / (share.inference * rate))
    again = taken(flops=flops, checkpoints_activations=True)
    assert again.training - more.training == pytest.approx(1e15 / (share.training * rate))


def test_one_device_talks_to_nobody():
    assert taken().communication == 0


def test_gradients_are_summed_once_an_update_over_a_ring():
    seconds = taken("4xH100-80GB", num_devices=4).communication
    assert seconds == pytest.approx(3 * 2 * 3 / 4 * 4 * EIGHT.weights / 450e9)


def test_shards_gather_weights_in_every_pass_and_scatter_gradients():
    seconds = taken("4xH100-80GB", num_devices=4, is_sharded=True).communication
    weights, reference = 2 * EIGHT.weights, 2 * EIGHT.weights
    moved = 2 * (weights + reference + 3 * (2 * weights + 4 * EIGHT.trained)) + weights
    assert seconds == pytest.approx(3 / 4 * moved / 450e9)


def test_beyond_a_node_the_network_is_the_link():
    assert hardware_of("16xH100-80GB").link < hardware_of("8xH100-80GB").link
