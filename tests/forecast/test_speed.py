import pytest
import torch

from rlhf.forecast import speed
from rlhf.forecast.load import HALF_ROWS, Load, decoding, of_model, of_phases
from rlhf.forecast.speed import Speed, measured


def test_each_kind_of_work_takes_its_own_time():
    fast = Speed(rate=1e12, float32=5e11, num_bytes=2, cores=4)
    empty = fast.seconds(Load())
    assert empty == speed.START
    times = {
        "training": 1.0 + 0.5 * 1e12 * speed.PASSES,
        "inference": 1.0 + 0.5 * 1e12 * speed.PASSES,
        "sampling": 1.0 + 0.5 * 1e12 * speed.SAMPLING,
        "encoding": 2.0 + 1e12 * speed.ENCODING,
        "seconds": 1e12,
    }
    for name, expected in times.items():
        assert fast.seconds(Load(**{name: 1e12})) - empty == pytest.approx(expected)
    assert fast.seconds(Load(updates=speed.UPDATED_WEIGHTS, num_bytes=speed.MOVED_BYTES)) == pytest.approx(empty + 2)


@pytest.mark.parametrize(
    ("rate", "num_bytes", "training", "sampling"),
    [(430e9, 2, 0.70, 0.55), (235e9, 4, 0.65, None), (68e9, 4, 0.86, 0.80)],
    ids=["bfloat16 on AVX512-BF16", "float32 on it", "float32 on AVX2"],
)
def test_shares_of_the_rate_are_those_that_were_measured_on_two_cores(rate, num_bytes, training, sampling):
    """Whole stages with SmolLM2-135M and `--profile`; decoding without what its few rows cost."""
    here = Speed(rate=rate, float32=rate, num_bytes=num_bytes, cores=2)
    for name, share in [("training", training), ("sampling", sampling)]:
        if share is not None:
            found = 1 / (here.seconds(Load(**{name: rate})) - speed.START)
            assert found == pytest.approx(share, rel=0.05)


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
    cores = 3 * torch.get_num_threads()
    assert measured((4, 4), 8, torch.float32) == Speed(rate=300.0, float32=300.0, num_bytes=4, cores=cores)


def test_float32_is_measured_beside_another_type(monkeypatch):
    monkeypatch.setattr(
        speed, "matrix_rate", lambda shape, rows, dtype, device, **_: 1.0 if dtype == torch.float32 else 2.0
    )
    found = measured((4, 4), 8, torch.bfloat16)
    assert (found.rate, found.float32, found.num_bytes) == (2.0, 1.0, 2)
