import pytest
import torch

from rlhf.training import precision
from rlhf.training.precision import FIRST_SIZE, HOPELESS, REPEATS, bfloat16_speedup, compute_dtype

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def measured_anew():
    bfloat16_speedup.cache_clear()
    yield
    bfloat16_speedup.cache_clear()


def let_products_take(monkeypatch, seconds):
    """Let each large product take the next of the times listed for its type; the first, small ones tell nothing."""
    left = {dtype: iter(times) for dtype, times in seconds.items()}

    def taken(matrix):
        return 1.0 if len(matrix) == FIRST_SIZE else next(left[matrix.dtype])

    monkeypatch.setattr(precision, "_seconds", taken)


@pytest.mark.parametrize(("bfloat16_seconds", "expected"), [(0.9, torch.float32), (0.7, torch.bfloat16)])
def test_auto_takes_bfloat16_where_it_multiplies_faster(monkeypatch, bfloat16_seconds, expected):
    times = {torch.float32: [1.0] * (1 + REPEATS), torch.bfloat16: [bfloat16_seconds] * (1 + REPEATS)}
    let_products_take(monkeypatch, times)
    assert compute_dtype("auto", CPU) == expected


def test_the_fastest_repeat_counts_and_the_first_product_does_not(monkeypatch):
    slow = [9.0] * (REPEATS - 3)
    times = {torch.float32: [0.1, 3.0, *slow, 1.0, 2.0], torch.bfloat16: [0.01, 0.5, *slow, 9.0, 0.25]}
    let_products_take(monkeypatch, times)
    assert bfloat16_speedup(CPU) == pytest.approx(1.0 / 0.25)


@pytest.mark.parametrize(("times_slower", "sizes"), [(HOPELESS + 1, {FIRST_SIZE}), (2.0, {FIRST_SIZE, 1024})])
def test_where_a_small_product_is_hopelessly_slow_no_large_one_is_tried(monkeypatch, times_slower, sizes):
    seen = set()

    def seconds(matrix):
        seen.add(len(matrix))
        return times_slower if matrix.dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(precision, "_seconds", seconds)
    assert bfloat16_speedup(CPU) == pytest.approx(1 / times_slower)
    assert seen == sizes


def test_the_check_multiplies_both_types_on_the_device(monkeypatch):
    seen = []
    monkeypatch.setattr(precision, "_seconds", lambda matrix: seen.append((matrix.dtype, matrix.device)) or 1.0)
    assert bfloat16_speedup(CPU) == 1.0
    assert set(seen) == {(torch.float32, CPU), (torch.bfloat16, CPU)}


def test_a_device_that_cannot_multiply_computes_in_float32():
    assert compute_dtype("auto", torch.device("meta")) == torch.float32


def test_this_processor_is_measured_once():
    first = bfloat16_speedup(CPU)
    assert first > 0 and bfloat16_speedup(CPU) == first


@pytest.mark.parametrize(("precision_name", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_precision_that_is_named_is_taken_without_a_measurement(monkeypatch, precision_name, expected):
    let_products_take(monkeypatch, {torch.float32: [], torch.bfloat16: []})
    assert compute_dtype(precision_name, CPU) == expected
