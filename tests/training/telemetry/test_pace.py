"""The time left is the forecast's before the first step, and then that of the last steps."""

from rlhf.training.telemetry.pace import RECENT, Pace, expecting


def pace(now, total=100, start=0, expected=None):
    with expecting(expected):
        return Pace(total, start, lambda: now[0])


def test_before_the_first_step_the_forecast_counts_down_and_then_the_time_passed_is_told():
    now = [0.0]
    one = pace(now, expected=90.0)
    assert (one.told(), one.left()) == ("first step", "about 0:01:30 left")
    now[0] = 60.0
    assert one.left() == "about 0:00:30 left"
    now[0] = 95.0
    assert one.left() == "0:01:35 passed"


def test_without_a_forecast_the_time_passed_is_told():
    now = [0.0]
    one = pace(now)
    now[0] = 61.0
    assert one.left() == "0:01:01 passed"


def test_a_resumed_run_expects_only_the_steps_that_are_left():
    assert pace([0.0], start=75, expected=400.0).left() == "about 0:01:40 left"


def test_the_last_steps_count_and_not_the_slow_first_one():
    now = [0.0]
    one = pace(now)
    now[0] = 50.0
    one.done(1)
    assert one.told() == "50.0 s/step"
    for step in range(2, RECENT + 2):
        now[0] += 2.0
        one.done(step)
    assert one.told() == "2.0 s/step"
    now[0] += 1.0  # the clock runs on between two steps
    assert one.left() == f"0:0{(2 * (100 - RECENT - 1) - 1) // 60}:{(2 * (100 - RECENT - 1) - 1) % 60:02d} left"


def test_a_forecast_that_is_near_needs_no_correction_and_one_that_is_off_gets_it():
    for seconds, told in ((1.1, ""), (2.0, "forecast 0:01:40, now 0:03:20 in all")):
        now = [0.0]
        one = pace(now, expected=100.0)
        assert one.correction() == ""
        now[0] = 10 * seconds
        one.done(10)
        assert one.correction() == told


def test_an_expectation_ends_with_its_block():
    with expecting(100.0):
        pass
    assert Pace(10, 0, lambda: 0.0).left() == "0:00:00 passed"
