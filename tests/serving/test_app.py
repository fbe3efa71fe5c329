import json
import logging
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf.serving.app import Bounds, build_app
from rlhf.serving.batcher import Batcher
from rlhf.serving.served_reward import Refused

BOUNDS = {"timeout": 60.0, "max_body_bytes": 1000, "max_items": 3, "max_text_chars": 10}


@pytest.fixture
def app(source):
    return _app(source)


def _app(source, hosts=("localhost",), **bounds):
    return build_app(Batcher(source), Bounds(**(BOUNDS | bounds)), token=None, hosts=list(hosts))


def test_scores_go_out_in_the_form_of_openrlhf(ask, app):
    body = {"query": ["abc", "a"], "prompts": ["a", ""], "labels": ["", 1]}
    answer = ask(app, "POST", "/get_reward", json=body)
    assert (answer.status_code, answer.json()) == (200, {"rewards": [3.0, 1.0]})
    assert ask(app, "POST", "/get_reward", json={"query": []}).json() == {"rewards": []}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"query": ["a"] * 4}, "query: holds 4 texts, at most 3 are scored at a time"),
        ({"query": ["a", "b" * 11]}, "query.1: has 11 characters, at most 10"),
        ({"query": ["a"], "prompts": ["b" * 11]}, "prompts.0: has 11 characters, at most 10"),
        ({"query": ["a"], "labels": ["b" * 1000]}, "Content Too Large"),
    ],
)
def test_too_much_is_413(ask, app, script, body, detail):
    answer = ask(app, "POST", "/get_reward", json=body)
    assert answer.status_code == 413
    assert detail in answer.text
    assert script.calls == []


def test_a_body_without_a_length_is_cut_off_at_the_limit(ask, app):
    taken = []

    async def chunks():
        for _ in range(1000):
            taken.append(1)
            yield b" " * 100

    answer = ask(app, "POST", "/get_reward", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert len(taken) <= 12


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "query: Field required"),
        ({"query": [1, "secret"]}, "query.0: Input should be a valid string"),
        ({"query": {"secret": 1}}, "query: Input should be a valid list"),
        ({"query": ["secret"], "prompts": []}, "Value error, prompts holds 0 items, query 1"),
        ({"query": [1, 2, 3, 4, 5]}, "2 more"),
        ("secret", "Input should be"),
        ({"query": ["a", "\ud800"]}, "query: Value error, item 1 holds half a surrogate pair"),
    ],
)
def test_a_schema_error_is_422_and_quotes_nothing(ask, app, body, detail):
    headers = {"Content-Type": "application/json"}
    answer = ask(app, "POST", "/get_reward", content=json.dumps(body), headers=headers)
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"] and "secret" not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/plain; application/json"])
def test_only_json_is_read(ask, app, kind):
    """A page in a browser can send the other kinds to any address without being asked."""
    answer = ask(app, "POST", "/get_reward", content=b'{"query": ["a"]}', headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()) == (415, {"detail": "expected Content-Type: application/json"})


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text(alphabet='{}[]":,\\u0d8query1eE-+. ', max_size=60).map(str.encode)))
def test_any_bytes_get_a_documented_answer(ask, app, body):
    answer = ask(app, "POST", "/get_reward", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 413, 422)
    assert set(answer.json()) in ({"rewards"}, {"detail"})


@pytest.mark.parametrize("body", [b"[" * 900, b'{"query": ["\\ud800"]}', b'{"query": ["a"], "labels": [NaN]}', b"\xff"])
def test_odd_json_is_no_server_error(ask, app, body):
    answer = ask(app, "POST", "/get_reward", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 422)


def test_a_reward_that_fails_is_500_and_the_log_does_not_quote_it(ask, app, script, caplog):
    caplog.set_level(logging.INFO)
    script.effects["secret"] = lambda: float("nan")
    answer = ask(app, "POST", "/get_reward", json={"query": ["secret"]})
    assert answer.status_code == 500
    assert answer.json() == {"detail": "reward 'script': score 0 is nan; expected one finite float per response"}

    def fail():
        raise ValueError("secret")

    script.effects["secret"] = fail
    assert ask(app, "POST", "/get_reward", json={"query": ["secret"]}).status_code == 500
    lines = [record.getMessage() + str(record.exc_info or "") for record in caplog.records]
    assert any("checks.py, line" in line for line in lines) and any("ValueError" in line for line in lines)
    assert "secret" not in "".join(lines)


def test_a_request_that_a_reward_cannot_read_has_its_status(ask, source, script):
    def fail():
        raise Refused(413, "query.0: has 300 tokens, the model 256 positions")

    script.effects["long"] = fail
    answer = ask(_app(source), "POST", "/get_reward", json={"query": ["long"]})
    assert (answer.status_code, answer.json()["detail"]) == (413, "query.0: has 300 tokens, the model 256 positions")


def test_a_reward_that_hangs_ends_its_requests_and_shows_in_health(ask, source, script):
    released = threading.Event()
    script.effects["hang"] = lambda: float(released.wait(60))
    app = _app(source, timeout=0.1)
    assert ask(app, "GET", "/health").json() == {"status": "ok"}
    answers = [ask(app, "POST", "/get_reward", json={"query": [text]}) for text in ("hang", "behind it")]
    health = ask(app, "GET", "/health")
    released.set()
    assert [answer.status_code for answer in answers] == [503, 503]
    assert (health.status_code, health.json()) == (503, {"status": "scoring for more than 0.1 s"})
    assert script.calls == [["hang"]]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "localhost@evil"])
def test_a_name_that_merely_resolves_to_this_machine_is_refused(ask, app, host):
    for path in ("/get_reward", "/health"):
        assert ask(app, "GET", path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "localhost:1"])
def test_names_of_this_machine_are_answered(ask, source, host):
    app = _app(source, hosts=["localhost", "127.0.0.1", "[::1]"])
    assert ask(app, "GET", "/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/openapi.json", "/get_reward/"])
def test_there_is_nothing_else(ask, app, path):
    assert ask(app, "GET", path).status_code == 404
    assert ask(app, "GET", "/get_reward").status_code == 405


def test_pages_of_other_origins_may_not_ask(ask, app):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = ask(app, "OPTIONS", "/get_reward", headers=headers)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
