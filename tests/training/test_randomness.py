"""One seed gives one run, streams are independent, and saved generators go on where they were."""

import random

import numpy as np
import pytest
import torch

from rlhf.errors import CheckpointError
from rlhf.training.randomness import (
    generator,
    generator_state,
    global_rng_state,
    restore,
    restore_global_rng_state,
    seed_everything,
)
from rlhf.training.storage.checkpoint import CheckpointStore


def _draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_a_seed_fixes_all_global_generators() -> None:
    seed_everything(2**33 + 1)
    first = _draw()
    assert _draw() != first
    seed_everything(2**33 + 1)
    assert _draw() == first


def test_streams_of_a_seed_differ_and_equal_streams_are_equal() -> None:
    def numbers(*arguments: int | str) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=generator(*arguments)).tolist())  # type: ignore[arg-type]

    streams = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", "1"), (0, 1), (0, 0), (0, "a1")]
    assert len({numbers(*stream) for stream in streams}) == len(streams)
    assert numbers(0, "a", 1) == numbers(0, "a", 1)


def test_a_stream_is_the_same_on_every_machine() -> None:
    assert generator(7, "rollout", 0).initial_seed() == 7130933894624273722


def test_a_generator_does_not_touch_the_global_one() -> None:
    before = torch.get_rng_state()
    generator(3, "x")
    assert torch.equal(before, torch.get_rng_state())


def test_a_restored_generator_goes_on_where_it_was() -> None:
    original = generator(5)
    torch.randn(3, generator=original)
    state = generator_state(original)
    expected = torch.randn(8, generator=original)
    other = generator(6)
    restore(other, state)
    assert state.dtype == torch.uint8
    assert torch.equal(torch.randn(8, generator=other), expected)


def test_a_state_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(CheckpointError, match="saved state of a random generator does not fit"):
        restore(generator(0), torch.zeros(3, dtype=torch.uint8))


def test_global_generators_go_on_after_a_checkpoint(tmp_path) -> None:
    store = CheckpointStore(tmp_path)
    seed_everything(1)
    _draw()  # leaves a second gaussian number waiting in python and numpy
    store.save(1, {"rng": global_rng_state()}, {})
    expected = _draw()
    seed_everything(2)
    checkpoint = store.latest(pytest.fail)
    assert checkpoint is not None
    restore_global_rng_state(checkpoint.tensors("rng"))
    assert _draw() == expected


def test_a_missing_generator_is_refused() -> None:
    state = global_rng_state()
    del state["numpy"]
    with pytest.raises(CheckpointError, match="resume on the same kind of device"):
        restore_global_rng_state(state)
