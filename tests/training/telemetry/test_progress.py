"""Progress is a plain line from time to time where there is no terminal."""

import io

from rlhf.training.telemetry.progress import Progress


class _Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self) -> bool:
        return True


def test_plain_lines_come_at_the_interval_and_at_the_end() -> None:
    now, out = [0.0], io.StringIO()
    with Progress(100, "sft", start=20, stream=out, clock=lambda: now[0]) as progress:
        for step in (21, 40, 92, 93, 100):
            now[0] = float(step - 20)
            progress.update(step, {"loss": 0.123456})
    assert out.getvalue().splitlines() == [
        "sft: step 40/100  1.00 steps/s  remaining 0:01:00  loss 0.1235",
        "sft: step 92/100  1.00 steps/s  remaining 0:00:08  loss 0.1235",
        "sft: step 100/100  1.00 steps/s  remaining 0:00:00  loss 0.1235",
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
