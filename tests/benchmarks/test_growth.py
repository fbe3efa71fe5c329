import pytest

import growth
import small_runs
from growth import Point
from rlhf.config import PPOConfig


def point(**changes):
    given = {"seconds": 0.1, "peak": 2.0**30, "flops": 1e9, "weights": 5_000_000}
    return Point(**(given | changes))


def test_a_slope_is_the_exponent_of_growth():
    assert growth.slope(2.0, 8.0, 1.0, 2.0) == pytest.approx(2.0)
    assert growth.slope(3.0, 3.0, 16.0, 512.0) == 0.0


def test_a_table_shows_slopes_beside_theory():
    rows = [(32.0, point()), (64.0, point(seconds=0.4, flops=2e9, peak=2.0**31))]
    lines = growth.table("response length", rows).splitlines()
    assert lines[2:] == ["| 32 | 100.0 |  |  | 1.00 |  |", "| 64 | 400.0 | +2.00 | +1.00 | 2.00 | +1.00 |"]


def test_processes_divide_the_time_as_far_as_there_are_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    one, two, four = ((float(num), point()) for num in (1, 2, 4))
    assert growth.theory("processes", one, two) == -1.0
    assert growth.theory("processes", two, four) == 0.0


@pytest.mark.parametrize("quick", [True, False])
def test_every_point_is_a_configuration_with_its_model(quick, tmp_path):
    for runs in growth.axes(quick).values():
        for run in runs:
            assert run.size in small_runs.SIZES
            assert PPOConfig.model_validate(run.config(tmp_path)).rollout_batch_size == run.batch
