"""The first signal asks, the second one ends the process."""

import os
import signal
import threading

import pytest

from rlhf.training import signals
from rlhf.training.signals import StopFlag


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_sets_the_flag_and_the_exit_status(number: signal.Signals, status: int) -> None:
    with StopFlag() as stop:
        assert not stop.requested
        assert stop.exit_status == 0
        signal.raise_signal(number)
        assert stop.requested
        assert stop.exit_status == status


def test_the_user_is_told_what_happens(capfd: pytest.CaptureFixture[str]) -> None:
    with StopFlag():
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == "SIGINT: stopping after this step; once more to stop at once\n"


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ((signal.SIGTERM, signal.SIGTERM), 143),
        ((signal.SIGINT, signal.SIGINT), 130),
        ((signal.SIGTERM, signal.SIGINT), 130),
    ],
)
def test_a_second_signal_ends_the_process_at_once(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[signal.Signals, signal.Signals], status: int
) -> None:
    monkeypatch.setattr(signals, "SAME_REQUEST_SECONDS", 0.0)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # a child that hangs fails the test instead of holding it up
        with StopFlag():
            for number in numbers:
                signal.raise_signal(number)
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status


def test_a_signal_that_a_launcher_passes_on_as_well_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "SAME_REQUEST_SECONDS", 1e9)
    with StopFlag() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.exit_status == 130


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with pytest.raises(KeyError), StopFlag():
        raise KeyError
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_outside_of_the_main_thread_the_flag_is_never_set() -> None:
    results = []

    def enter() -> None:
        with StopFlag() as stop:
            results.append(stop.requested)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert results == [False]
