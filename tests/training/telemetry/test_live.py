"""The live display: figures and samples below a bar, never in the way of other lines."""

import contextlib
import io
import logging
import re
import sys

import pytest

from rlhf.training.telemetry.progress import Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class AsciiTerminal(Terminal):
    encoding = "ascii"


FIGURES = {
    "objective/scores": 2.345, "objective/kl": 0.1234, "val/share_ended": 0.9375, "policy/clipfrac_avg": 0.1,
    "val/explained_variance": 0.31, "tokens/s": 12345.6,
}  # fmt: skip


@pytest.fixture(autouse=True)
def colour(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def shown(out):
    """What a terminal shows, line by line, all states of the display one after the other."""
    without_codes = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]", without_codes) if line.strip()]


def last_state(columns, monkeypatch, out=None, samples=()):
    monkeypatch.setenv("COLUMNS", str(columns))
    now, out = [0.0], out or Terminal()
    with Progress(22, "ppo", stream=out, clock=lambda: now[0]) as progress:
        now[0] = 45.3
        progress.update(1, FIGURES, samples)
        now[0] = 55.3
        progress._live._bar.refresh()
        lines = shown(out)
    place = max(place for place, line in enumerate(lines) if line.startswith("ppo"))
    return [re.sub("[-\u2501\u2578\u257a]+", "", line).replace("  ", " ") for line in lines[place:]]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_step_pace_and_every_figure_are_whole_at_any_width(columns, monkeypatch):
    bar, *figures = last_state(columns, monkeypatch)
    assert re.sub(" +", " ", bar) == "ppo 1/22 5% 45.3 s/step 0:15:41 left"
    assert re.split("  ?(?=[a-z]+/)", " ".join(figures)) == [
        "objective/scores 2.345", "objective/kl 0.1234", "val/share_ended 0.9375", "policy/clipfrac_avg 0.1",
        "val/explained_variance 0.31", "tokens/s 12,346",
    ]  # fmt: skip
    assert len(figures) == {60: 3, 80: 2, 120: 2}[columns]


WILD = {
    "prompt": "[red]Say[/red]\n this",
    "response": "\x1b]0;own\x07\u202e[bold]x[/bold] \u4e2d" + "long " * 50,
    "score": 1.25,
}


def test_a_sample_is_text_on_two_lines_that_fit(monkeypatch):
    prompt, answer = last_state(80, monkeypatch, samples=[WILD])[-2:]
    assert prompt == "step 1: [red]Say[/red] this"
    assert answer.startswith("answer, score 1.25: ]0;own[bold]x[/bold] \u4e2dlong long") and answer.endswith("...")
    assert len(answer) <= 77


def test_a_terminal_without_a_character_gets_a_question_mark(monkeypatch):
    assert "[/bold] ?long" in last_state(80, monkeypatch, AsciiTerminal(), [WILD])[-1]


def test_a_conversation_is_shown_as_its_messages(monkeypatch):
    row = {"prompt": [{"role": "user", "content": "Hi"}], "response": "Ho"}
    assert last_state(80, monkeypatch, samples=[row])[-2:] == ["step 1: user: Hi", "answer: Ho"]


def test_the_next_samples_come_after_the_interval_and_show_another_row(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    now, out = [0.0], Terminal()
    rows = [{"prompt": "p", "response": "first"}, {"prompt": "p", "response": "second"}]
    with Progress(9, "ppo", stream=out, clock=lambda: now[0], interval=10.0) as progress:
        for step, (seconds, answer) in enumerate([(0, "first"), (9, "first"), (10, "second")], start=1):
            now[0] = float(seconds)
            progress.update(step, {}, rows)
            progress._live._bar.refresh()
            assert shown(out)[-1] == f"answer: {answer}"


def test_the_end_leaves_bar_and_figures_without_the_sample_also_after_an_error(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    with contextlib.suppress(KeyboardInterrupt), Progress(9, "ppo", stream=out) as progress:
        progress.update(3, {"loss": 0.5}, [WILD])
        raise KeyboardInterrupt
    end = shown(out)[-2:]
    assert "3/9" in end[0] and end[1] == "loss 0.5"
    assert out.getvalue().rstrip("\n").endswith("\x1b[?25h")  # the cursor is back
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h")


def test_what_is_printed_and_logged_meanwhile_stands_above_the_display(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr(sys, "stdout", out)
    handler = logging.StreamHandler(out)
    logger = logging.getLogger("somebody.else")
    logger.addHandler(handler)
    try:
        with Progress(9, "ppo") as progress:
            progress.update(3, {"loss": 0.5})
            print("warning: [red]no response of this step ended")
            logger.warning("a line of a library")
            progress.update(4, {"loss": 0.5})
        assert handler.stream is out
    finally:
        logger.removeHandler(handler)
    lines = shown(out)
    for line in ("warning: [red]no response of this step ended", "a line of a library"):
        assert lines.count(line) == 1
        assert lines[lines.index(line) + 1].startswith("ppo")  # the display was cleared before, and drawn again below
    assert "loss 0.5" in lines[-1]


def test_what_goes_into_a_file_is_not_drawn_on_the_terminal(monkeypatch, tmp_path):
    out = Terminal()
    monkeypatch.setattr(sys, "stderr", out)
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with Progress(9, "ppo") as progress:
            progress.update(3)
            print("results: here")
    assert (tmp_path / "log").read_text() == "results: here\n"
    assert "results" not in out.getvalue()
