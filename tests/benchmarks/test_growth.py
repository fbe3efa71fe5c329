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


def test_more_processes_on_the_same_cores_take_the_same_time():
    assert growth.theory("processes", (1.0, point()), (2.0, point())) == 0.0


@pytest.mark.parametrize("quick", [True, False])
def test_every_point_is_a_configuration_with_its_model(quick, tmp_path):
    for runs in growth.axes(quick).values():
        for run in runs:
            assert run.size in small_runs.SIZES
            assert PPOConfig.model_validate(run.config(tmp_path)).rollout_batch_size == run.batch
