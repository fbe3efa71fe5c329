"""Processes meet within a bounded time; a launcher is known by its variable."""

import os
from datetime import timedelta

import pytest

from rlhf.errors import ConfigError, LostProcess
from rlhf.training.rendezvous import joined, launcher_of

SECOND = timedelta(seconds=1)
MEMBER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234", "WORLD_SIZE": "2", "RANK": "1"}


def failing(error):
    def make(handlers):
        raise error

    return make


@pytest.mark.parametrize(
    "text", ["The server socket has failed to listen: EADDRINUSE", "bind: Address already in use\nmore lines"]
)
def test_a_port_in_use_is_refused_with_status_2(text):
    with pytest.raises(ConfigError, match="another program listens at 127.0.0.1:1234 - choose another port"):
        joined(failing(RuntimeError(text)), MEMBER, SECOND)


def test_processes_that_do_not_meet_are_one_line():
    with pytest.raises(LostProcess, match="the 2 processes .* at 127.0.0.1:1234 within 50 s: .*first line") as error:
        joined(failing(RuntimeError("first line\nsecond line")), MEMBER, SECOND)
    assert "second line" not in str(error.value) and error.value.exit_status == 1


def test_the_seconds_may_be_given_and_must_be_a_number():
    with pytest.raises(LostProcess, match="within 7 s"):
        joined(failing(RuntimeError("")), {**MEMBER, "RLHF_JOIN_SECONDS": "7"}, SECOND)
    for given in ("0", "-1", "inf", "soon", "nan"):
        with pytest.raises(ConfigError, match="RLHF_JOIN_SECONDS: expected seconds above 0"):
            joined(failing(RuntimeError("")), {**MEMBER, "RLHF_JOIN_SECONDS": given}, SECOND)


def test_the_library_gets_the_seconds():
    given = joined(lambda handlers: handlers, {**MEMBER, "RLHF_JOIN_SECONDS": "7"}, SECOND)
    assert [handler.timeout for handler in given] == [timedelta(seconds=7)]


def test_an_error_of_a_process_alone_is_its_own():
    with pytest.raises(RuntimeError, match="no GPU"):
        joined(failing(RuntimeError("no GPU")), {}, SECOND)


def test_a_process_that_is_held_for_ever_is_ended(capfd):
    child = os.fork()
    if child == 0:
        import threading

        from rlhf.training import rendezvous

        rendezvous.GRACE_SECONDS = 0.0
        joined(lambda handlers: threading.Event().wait(60), {**MEMBER, "RLHF_JOIN_SECONDS": "0.1"}, SECOND)
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert "process 1: error: the 2 processes of the run did not meet" in capfd.readouterr().err


def test_only_a_launched_process_has_a_launcher():
    assert launcher_of({}) is None
    assert launcher_of({"TORCHELASTIC_RUN_ID": "none"}) == os.getppid()
