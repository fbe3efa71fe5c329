import pytest
import torch

from rlhf.forecast import speed
from rlhf.forecast.load import HALF_ROWS, Load, decoding, of_model, of_phases
from rlhf.forecast.speed import Speed, measured


def test_each_kind_of_work_takes_its_own_time():
    fast = Speed(rate=1e9, float32=5e8)
    empty = fast.seconds(Load())
    assert empty == speed.START
    times = {
        "training": 1 / speed.TRAINING,
        "inference": 1 / speed.INFERENCE,
        "sampling": 1 / speed.SAMPLING,
        "encoding": 2 / speed.ENCODING,
        "seconds": 1e9,
    }
    for name, expected in times.items():
        assert fast.seconds(Load(**{name: 1e9})) - empty == pytest.approx(expected)
    assert fast.seconds(Load(updates=speed.UPDATED_WEIGHTS, num_bytes=speed.MOVED_BYTES)) == pytest.approx(empty + 2)


def test_few_rows_decode_slower():
    assert decoding(10.0, HALF_ROWS).sampling == 20.0
    load = of_phases({"generation": 6.0, "reward": 1.0, "reference": 2.0, "forward": 4.0, "backward": 8.0}, HALF_ROWS)
    assert (load.training, load.inference, load.sampling) == (12.0, 3.0, 12.0)


def test_checkpoints_and_updates_count_what_is_trained():
    model = torch.nn.Linear(5, 3)
    model.bias.requires_grad_(False)
    load = of_model(model, num_updates=7, every=2, num_steps=5)
    assert load == Load(updates=15.0 * 7, num_bytes=3 * 4 * 18.0 + 2 * 12 * 15.0)


def test_processes_together_multiply_as_often_as_there_are_of_them(monkeypatch):
    monkeypatch.setattr(speed, "matrix_rate", lambda *_, **__: 100.0)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert measured((4, 4), 8, torch.float32) == Speed(rate=300.0, float32=300.0)


def test_float32_is_measured_beside_another_type(monkeypatch):
    monkeypatch.setattr(
        speed, "matrix_rate", lambda shape, rows, dtype, device, **_: 1.0 if dtype == torch.float32 else 2.0
    )
    assert measured((4, 4), 8, torch.bfloat16) == Speed(rate=2.0, float32=1.0)
