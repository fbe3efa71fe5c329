import pytest

from rlhf.forecast.expected import Expected
from rlhf.forecast.forecast import Forecast


def known(**seconds):
    return Forecast({name: Expected(seconds=number) for name, number in seconds.items()})


def test_the_opening_line_gives_every_stage_in_minutes():
    assert known(sft=118.0, reward_model=121.0, ppo=245.0, evaluate=55.0).opening() == [
        "about 9 min here: sft 2, reward model 2, ppo 4, evaluation 1"
    ]


def test_short_runs_are_told_in_seconds_and_long_ones_in_hours():
    assert known(sft=12.4, ppo=30.2).opening() == ["about 43 s here: sft 12, ppo 30"]
    assert known(sft=20.0, ppo=500.0).opening() == ["about 9 min here: sft <1, ppo 8"]
    assert known(sft=2400.0, ppo=9000.0).opening() == ["about 3.2 h here: sft 0.7, ppo 2.5"]


def test_nothing_is_said_where_nothing_is_left_to_do():
    assert Forecast({}).opening() == []
    assert Forecast({}).before("sft") == Forecast({}).after("sft", 3.0) == ""


def test_what_cannot_be_told_is_named_with_its_reason():
    expected = {
        "sft": Expected(seconds=120.0),
        "ppo": Expected(seconds=180.0, reason="without its reward score, whose time nobody knows"),
        "evaluate": Expected(seconds=None, reason="org/model is not on this machine yet"),
    }
    assert Forecast(expected).opening() == [
        "about 5 min here, and what cannot be told: sft 2, ppo 3, evaluation ?",
        "ppo: without its reward score, whose time nobody knows",
        "evaluation: cannot be told - org/model is not on this machine yet",
    ]
    alone = Forecast({"sft": Expected(seconds=None, reason="no model")})
    assert alone.opening() == ["how long this takes here cannot be told: sft ?", "sft: cannot be told - no model"]
    assert alone.before("sft") == alone.after("sft", 9.0) == ""


def test_a_stage_that_took_longer_puts_the_next_ones_right():
    forecast = known(sft=60.0, ppo=120.0)
    assert forecast.before("sft") == ", about 60 s"
    assert forecast.after("sft", 90.0) == " (forecast at the start: 60 s)"
    assert forecast.before("ppo") == ", about 3 min (the stages so far took 1.5 times as long as forecast)"


def test_a_stage_too_short_to_tell_and_one_with_an_unknown_part_put_nothing_right():
    forecast = known(sft=5.0, ppo=60.0)
    forecast.after("sft", 50.0)
    assert forecast.before("ppo") == ", about 60 s"
    forecast = Forecast(
        {"ppo": Expected(seconds=60.0, reason="without its reward"), "evaluate": Expected(seconds=30.0)}
    )
    forecast.after("ppo", 600.0)
    assert forecast.before("evaluate") == ", about 30 s"


def test_a_stage_that_may_end_early_takes_at_most_its_time_and_puts_nothing_right():
    early = Expected(seconds=60.0, may_end_early=True)
    forecast = Forecast({"ppo": early, "evaluate": Expected(seconds=30.0)})
    assert forecast.before("ppo") == ", at most about 60 s"
    forecast.after("ppo", 30.0)
    assert forecast.before("evaluate") == ", about 30 s"


@pytest.mark.parametrize(
    ("taken", "said"), [(63.0, ""), (30.0, " (the stages so far took 0.5 times as long as forecast)")]
)
def test_a_forecast_that_was_nearly_right_is_not_remarked_upon(taken, said):
    forecast = known(sft=60.0, ppo=120.0)
    forecast.after("sft", taken)
    assert forecast.before("ppo").endswith(said) and ("so far" in forecast.before("ppo")) == bool(said)
