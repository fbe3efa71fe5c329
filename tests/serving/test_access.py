import asyncio
import logging

import pytest

from rlhf.serving.access import Gate, named

TOKEN = "0123456789abcdef"


async def _fine(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="rlhf.serving")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}0"},
        {"Authorization": f"Basic {TOKEN}"},
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
    ],
)
def test_without_the_token_nothing_is_read(ask, header):
    async def never(scope, receive, send):
        raise AssertionError

    answer = ask(Gate(never, token=TOKEN, timeout=60), "POST", "/get_reward", json={}, headers=header)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert TOKEN not in answer.text


def test_the_token_lets_in_and_health_needs_none(ask):
    gate = Gate(_fine, token=TOKEN, timeout=60)
    assert ask(gate, "POST", "/get_reward", headers={"Authorization": f"Bearer {TOKEN}"}).text == "fine"
    assert ask(gate, "GET", "/health").text == "fine"
    assert ask(gate, "GET", "/health/").status_code == 401
    assert ask(Gate(_fine, token=None, timeout=60), "POST", "/get_reward").text == "fine"


def test_a_request_that_takes_too_long_is_ended(ask):
    ended = []

    async def slow(scope, receive, send):
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    answer = ask(Gate(slow, token=None, timeout=0.05), "POST", "/get_reward")
    assert (answer.status_code, answer.json()) == (503, {"detail": "not done within the server's --timeout of 0.05 s"})
    assert ended == [True]


def test_the_log_has_no_text_of_a_request(ask, lines):
    async def fail(scope, receive, send):
        try:
            raise ValueError("a secret prompt")
        except ValueError as error:
            raise RuntimeError("a secret response") from error

    answer = ask(Gate(fail, token=None, timeout=60), "POST", "/get_reward?q=secret", json={"query": ["secret"]})
    assert (answer.status_code, answer.json()) == (500, {"detail": "the server failed"})
    ask(Gate(_fine, token=TOKEN, timeout=60), "SECRET", "/secret%1b[31m/path")
    error, first, second = lines()
    assert error.startswith("RuntimeError (") and " from ValueError (" in error and "test_access.py, line" in error
    assert first.startswith("POST /get_reward 500 ")
    assert second.startswith("other other 401 ")
    assert "secret" not in "".join(lines())


def test_an_error_is_named_by_kind_and_place():
    assert named(ValueError("secret")) == "ValueError"
