import pytest
import torch

from rlhf.training.telemetry import machine
from rlhf.training.telemetry.machine import matrix_rate

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock by which each product takes a second and nothing else takes time; it notes what was multiplied."""
    seen = {"now": 0.0, "products": []}

    def multiply(tokens, weight):
        seen["now"] += 1.0
        seen["products"].append((*tokens.shape, len(weight), tokens.dtype))

    monkeypatch.setattr(machine.time, "perf_counter", lambda: seen["now"])
    monkeypatch.setattr(machine.functional, "linear", multiply)
    return seen


def test_the_rate_is_that_of_the_fastest_product_by_hand(clock):
    # 4 tokens, 6 x 5 weights: 2 x 4 x 6 x 5 = 240 operations in a second.
    assert matrix_rate((6, 5), 4, torch.bfloat16, CPU, seconds=0.0) == 240.0
    assert clock["products"] == [(4, 5, 6, torch.bfloat16)] * machine.REPEATS


def test_a_disturbed_product_does_not_count(clock, monkeypatch):
    seconds = iter([4.0, 2.0, 8.0])
    monkeypatch.setattr(machine.functional, "linear", lambda *_: clock.update(now=clock["now"] + next(seconds)))
    assert matrix_rate((6, 5), 4, torch.float32, CPU, seconds=0.0) == 240.0 / 2


def test_products_grow_to_the_tokens_of_training_and_stop_in_time(clock, monkeypatch):
    monkeypatch.setattr(machine, "FIRST_FLOPS", 2 * 30 * 3)
    # Sizes 3, 6, 10, 10 take 3 s each; after these 12 s a fifth would end at 15 s.
    assert matrix_rate((6, 5), 10, torch.float32, CPU, seconds=14.0) == 2 * 10 * 30
    assert [product[0] for product in clock["products"]][:: machine.REPEATS] == [3, 6, 10, 10]


def test_a_very_large_matrix_is_cut(clock, monkeypatch):
    monkeypatch.setattr(machine, "MAX_WEIGHTS", 20)
    assert matrix_rate((6, 5), 4, torch.float32, CPU, seconds=0.0) == 2 * 4 * 4 * 5


def test_measuring_leaves_the_random_numbers_of_the_run_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert matrix_rate((8, 8), 8, torch.float32, CPU, seconds=0.0) > 0
    assert torch.equal(torch.rand(2), expected)
