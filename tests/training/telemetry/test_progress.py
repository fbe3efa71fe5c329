"""Progress is a plain line from time to time where there is no terminal."""

import io
import re

import pytest

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


METRICS = {"objective/kl": 0.1234, "objective/scores": 2.345, "policy/clipfrac_avg": 0.1}


@pytest.mark.parametrize(
    ("columns", "shown"),
    [("80", "objective/kl 0.1234"), ("60", ""), ("120", "objective/kl 0.1234  objective/scores 2.345")],
)
def test_step_share_and_time_left_stay_on_the_line_and_whole_metrics_are_cut(columns, shown, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    now, out = [0.0], _Terminal()
    with Progress(22, "ppo", stream=out, clock=lambda: now[0]) as progress:
        now[0] = 45.3
        progress.update(1, METRICS)
        now[0] = 55.3
    line = _plain(out.getvalue())[-1]
    assert re.sub(r"^ppo[ -]+", "", line) == f"1/22   5% 45.3 s/step 0:15:41 left {shown}".rstrip()


def test_before_the_first_step_the_bar_shows_the_time_that_has_passed() -> None:
    now, out = [0.0], _Terminal()
    with Progress(22, "ppo", stream=out, clock=lambda: now[0]):
        now[0] = 61.0
    assert "first step 0:01:01 passed" in _plain(out.getvalue())[-1]


def _plain(printed: str) -> list[str]:
    """What a terminal shows, line by line, each state of the bar as one line."""
    without_codes = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed)
    return [line.strip() for line in re.split(r"[\r\n]", without_codes) if line.strip()]
