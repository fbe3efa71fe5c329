"""Calls in a thread of their own. Events stand where a real call would take long: no test depends on speed."""

import subprocess
import sys
import threading

import pytest
import torch

from rlhf.rewards.deadline import NoAnswer, Worker

LONG = 120.0
SHORT = 0.05


def raised():
    raise ValueError("no")


def test_an_answer_comes_back_and_an_exception_is_raised_here():
    worker = Worker("w")
    assert worker.run(lambda: 3, LONG) == 3
    with pytest.raises(ValueError, match="no") as caught:
        worker.run(raised, LONG)
    assert caught.traceback[-1].name == "raised"


def test_interrupts_and_exits_are_raised_here_and_the_thread_goes_on():
    worker = Worker("w")
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind):
            worker.run(lambda kind=kind: (_ for _ in ()).throw(kind()), LONG)
    assert worker.run(lambda: 1, LONG) == 1


def test_all_calls_are_done_by_one_thread_that_learns_nothing():
    worker = Worker("my reward")
    first = worker.run(threading.current_thread, LONG)
    assert first is worker.run(threading.current_thread, LONG)
    assert first is not threading.current_thread() and first.name == "my reward" and first.daemon
    assert not worker.run(torch.is_grad_enabled, LONG)


def test_a_call_that_hangs_is_left_behind_and_two_never_run_at_once():
    worker, go_on, calls = Worker("w"), threading.Event(), []
    with pytest.raises(NoAnswer, match=r"no answer within 0.05 s"):
        worker.run(lambda: (go_on.wait(), calls.append("first")), SHORT)
    with pytest.raises(NoAnswer):
        worker.run(lambda: calls.append("given up before it began"), SHORT)
    go_on.set()
    assert worker.run(lambda: calls.append("third"), LONG) is None
    assert calls == ["first", "third"]


@pytest.mark.slow
def test_a_call_that_hangs_does_not_keep_the_process_from_ending():
    code = (
        "import threading; from rlhf.rewards.deadline import NoAnswer, Worker\n"
        "try: Worker('w').run(threading.Event().wait, 0.05)\n"
        "except NoAnswer: print('left')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr
