"""Progress is a plain line from time to time where there is no terminal, and a live display where there is one."""

import io

import pytest

from rlhf.errors import ConfigError
from rlhf.training.telemetry.pace import expecting
from rlhf.training.telemetry.progress import Progress


class _Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self) -> bool:
        return True


def test_plain_lines_come_at_the_interval_and_at_the_end() -> None:
    now, out = [0.0], io.StringIO()
    with Progress(100, "sft", start=20, stream=out, clock=lambda: now[0]) as progress:
        for step in (21, 40, 92, 93, 100):
            now[0] = float(step - 20) / 2
            progress.update(step, {"loss": 0.123456})
    assert out.getvalue().splitlines() == [
        "sft: step 40/100 (40%)  2.00 steps/s  0:00:30 left  loss 0.1235",
        "sft: step 92/100 (92%)  2.00 steps/s  0:00:04 left  loss 0.1235",
        "sft: step 100/100 (100%)  2.00 steps/s  0:00:00 left  loss 0.1235",
    ]


def test_below_one_step_a_second_the_pace_is_in_seconds_a_step() -> None:
    now, out = [0.0], io.StringIO()
    with Progress(22, "ppo", stream=out, clock=lambda: now[0]) as progress:
        now[0] = 24.6
        progress.update(2)
    assert out.getvalue() == "ppo: step 2/22 (9%)  12.3 s/step  0:04:06 left\n"


def test_more_steps_are_added_to_those_before_and_never_go_beyond_the_total() -> None:
    now, out = [0.0], io.StringIO()
    with Progress(10, "evaluate", interval=0.0, stream=out, clock=lambda: now[0]) as progress:
        for number in (4, 4, 4):
            now[0] += 2.0
            progress.advance(number)
    assert [line.split("  ")[0] for line in out.getvalue().splitlines()] == [
        "evaluate: step 4/10 (40%)",
        "evaluate: step 8/10 (80%)",
        "evaluate: step 10/10 (100%)",
    ]


def test_other_processes_show_nothing() -> None:
    for out in (io.StringIO(), _Terminal()):
        with Progress(2, "sft", enabled=False, interval=0.0, stream=out) as progress:
            progress.update(1)
            progress.update(2)
        assert out.getvalue() == ""


def test_a_bar_on_a_terminal_takes_brackets_literally() -> None:
    out = _Terminal()
    with Progress(2, "[red]x", stream=out) as progress:
        progress.update(2, {"[bold]kl": 0.5})
    assert "[red]x" in out.getvalue()
    assert "2/2" in out.getvalue()


def test_the_environment_can_ask_for_plain_lines_on_a_terminal_or_for_nothing(monkeypatch) -> None:
    for chosen, shown in (("plain", "sft: step 2/2 (100%)"), ("off", "")):
        monkeypatch.setenv("RLHF_PROGRESS", chosen)
        out = _Terminal()
        with Progress(2, "sft", stream=out, clock=lambda: 0.0) as progress:
            progress.update(2)
        assert "\x1b" not in out.getvalue()
        assert out.getvalue().partition("  ")[0] == shown


def test_an_unknown_choice_in_the_environment_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("RLHF_PROGRESS", "loud")
    with pytest.raises(ConfigError, match="RLHF_PROGRESS: expected auto, plain, off, found 'loud'"):
        Progress(2, "sft", stream=io.StringIO())


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    out = _Terminal()
    with Progress(1, "sft", stream=out) as progress:
        progress.update(1, {"val/tokens": 123456.0})
    assert "\x1b" not in out.getvalue() and out.getvalue().endswith("val/tokens 123,456\n")


def test_lines_say_where_the_measured_time_is_far_from_the_forecast() -> None:
    now, out = [0.0], io.StringIO()
    with expecting(100.0), Progress(10, "sft", stream=out, clock=lambda: now[0]) as progress:
        now[0] = 30.0
        progress.update(1)
    assert out.getvalue().endswith("0:04:30 left  forecast 0:01:40, now 0:05:00 in all\n")
