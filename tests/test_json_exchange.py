"""The client against a server that does everything wrong: each failure ends by the deadline with one line of cause."""

import asyncio
import re
import socket
import ssl
import threading
import time

import pytest

from rlhf import json_exchange
from rlhf.address import shown_url, trust_of
from rlhf.json_exchange import ExchangeFailed, Limits, get_json, post_json

PATIENT = 60.0  # for outcomes that come by themselves
DEADLINE = 0.5  # for those that only the deadline ends
BOUND = 20 * DEADLINE  # a machine may be busy; without the deadline each of them would last for minutes

HALF_A_BODY = ("stop", b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"rewards": [1.5')
HALF_A_CHUNK = ("stop", b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"rewards"')
HALF_A_HEADER = ("stop", b"HTTP/1.1 200 OK\r\nContent-Le")
FINE = {"rewards": [1.5, -2]}


def _post(url, token=None, **options):
    settings = {"timeout": PATIENT, "deadline": PATIENT, "retries": 3, "max_response_bytes": 1 << 20}
    return post_json(url, b'{"query": []}', token, Limits(**(settings | options)), trust_of(url))


def _failure(url, token=None, **options):
    with pytest.raises(ExchangeFailed) as caught:
        _post(url, token, **options)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
    return caught.value


@pytest.mark.parametrize("failure", [503, (500, b""), 429, "slam", HALF_A_BODY, HALF_A_CHUNK, HALF_A_HEADER])
def test_what_may_pass_is_tried_again(chaos, failure):
    server = chaos(failure, failure, 200)
    answer = _post(server.url)
    assert (answer.content, answer.attempts, len(server.requests)) == (FINE, 3, 3)


def test_an_attempt_that_hangs_is_given_up_after_its_timeout(chaos):
    answer = _post(chaos("hang", 200).url, timeout=1.0)
    assert answer.content == FINE
    assert answer.attempts > 1


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        ((503, b"too\nbusy"), r"status 503 'too\\nbusy'$"),
        ((502, b""), "status 502 ''$"),
        ((429, b"x" * 100_000), r"status 429 'x{76}\.\.\.$"),
        ("slam", "(Read|Write|RemoteProtocol)Error: "),
        (HALF_A_BODY, "RemoteProtocolError: .*closed connection"),
        (HALF_A_CHUNK, "RemoteProtocolError: .*closed connection"),
    ],
)
def test_after_the_last_attempt_the_cause_is_named(chaos, failure, cause):
    server = chaos(failure)
    problem = _failure(server.url, retries=2)
    assert (problem.attempts, len(server.requests)) == (3, 3)
    assert re.match(cause, str(problem))


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        ((400, b'{"detail": "no such key"}'), 'status 400 \'{"detail": "no such key"}\'$'),
        (401, "status 401 "),
        (404, "status 404 "),
        ((413, b"x" * 100_000), r"status 413 'x{76}\.\.\.$"),
        ((204, b""), "status 204 ''$"),
        ((304, b""), "status 304 ''$"),
        ((200, b""), r"the answer is not JSON \(JSONDecodeError\): ''$"),
        ((200, b'{"rewards": [1.5'), r"the answer is not JSON \(JSONDecodeError\): "),
        ((200, b"<html>\x1b[31m"), r"the answer is not JSON \(JSONDecodeError\): '<html>\\x1b\[31m'$"),
        ((200, b"\xff\xfe\xff"), r"the answer is not JSON \(UnicodeDecodeError\)"),
        ((200, b"[" * 100_000), r"the answer is not JSON \((RecursionError|JSONDecodeError)\): "),
        ((200, b"1" * 5000), r"the answer is not JSON \(ValueError\)"),
        ((200, b"\x1f\x8b", "Content-Encoding: gzip"), "the answer is compressed; expected plain JSON$"),
        ((200, b"x" * 10_000_000), "the answer is larger than 1048576 bytes$"),
        ("endless", "the answer is larger than 1048576 bytes$"),
    ],
)
def test_what_would_not_change_is_not_tried_again(chaos, failure, cause):
    server = chaos(failure)
    problem = _failure(server.url)
    assert (problem.attempts, len(server.requests)) == (1, 1)
    assert re.match(cause, str(problem))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_its_target_is_named_without_secrets(chaos, status):
    other = chaos(200)
    target = other.url.replace("http://", "http://user:hidden@") + "?key=hidden"
    server = chaos((status, b"", f"Location: {target}"))
    assert str(_failure(server.url)) == (
        f"status {status} redirects to {other.url}; redirects are not followed - give that address"
    )
    assert (len(server.requests), other.requests) == (1, [])


@pytest.mark.parametrize(
    "failure",
    [
        "hang",
        ("drip", b"HTTP/1.1 200 OK\r\nX: "),
        ("drip", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        ("drip", b"HTTP/1.1 503 X\r\nContent-Length: 100000\r\n\r\n"),
    ],
    ids=["hang", "drip of headers", "drip of the body", "drip of an error"],
)
@pytest.mark.parametrize("options", [{}, {"timeout": DEADLINE / 3, "retries": 1000}], ids=["one attempt", "many"])
def test_the_deadline_holds_whatever_the_server_does(chaos, failure, options):
    start = time.monotonic()
    problem = _failure(chaos(failure).url, deadline=DEADLINE, **options)
    assert time.monotonic() - start < BOUND
    assert re.fullmatch(r"no complete answer within the .*deadline of 0\.5 s", str(problem))


@pytest.mark.parametrize("place", ["a name look-up", "the event loop itself"])
def test_the_deadline_holds_when_nothing_can_be_cancelled(monkeypatch, place):
    released = threading.Event()

    def look_up(*args, **kwargs):
        released.wait(60)
        raise socket.gaierror("no such name")

    async def block(*args):
        look_up()

    if place == "a name look-up":
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
    else:
        monkeypatch.setattr(json_exchange._Exchange, "_content", block)
    start = time.monotonic()
    problem = _failure("http://name.invalid/", deadline=DEADLINE, retries=0)
    elapsed = time.monotonic() - start
    released.set()
    assert elapsed < BOUND
    assert str(problem) == "no complete answer within the deadline of 0.5 s"


@pytest.mark.parametrize("header", ["Retry-After: 3600", "Retry-After: Fri, 31 Dec 2999 23:59:59 GMT"])
def test_a_wait_that_the_server_asks_for_is_not_begun_beyond_the_deadline(chaos, header):
    server = chaos((429, b"", header))
    start = time.monotonic()
    problem = _failure(server.url)
    assert time.monotonic() - start < PATIENT / 2
    assert re.fullmatch("status 429 ''; waiting .* s more would pass the deadline of 60 s", str(problem))
    assert len(server.requests) == 1


def test_a_wait_that_the_server_asks_for_is_honoured(chaos):
    start = time.monotonic()
    assert _post(chaos((429, b"", "Retry-After: 1"), 200).url).attempts == 2
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("header", ["", "soon", "-5", "nan", "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 99 Dec"])
def test_a_wait_that_cannot_be_read_or_has_passed_is_none(header):
    assert json_exchange._retry_after(header) == 0


def test_waits_double_up_to_a_limit_and_are_spread_over_half_their_length():
    longest = [json_exchange.back_off(attempts, lambda: 1.0) for attempts in (1, 2, 3, 9, 5000)]
    assert longest == [0.1, 0.2, 0.4, 10.0, 10.0]
    assert json_exchange.back_off(3, lambda: 0.0) == 0.2


def test_a_server_that_is_not_there_is_a_connection_error():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    problem = _failure(f"http://127.0.0.1:{port}/", retries=1)
    assert problem.attempts == 2
    assert re.match(rf"ConnectError: .*\('127.0.0.1', {port}\)$", str(problem))


def test_a_running_event_loop_is_not_in_the_way(chaos):
    async def notebook_cell():
        return _post(chaos(200).url).content

    assert asyncio.run(notebook_cell()) == FINE


def test_a_token_goes_along_and_is_taken_out_of_what_comes_back(chaos):
    server = chaos((403, b"you sent Bearer s3cret"), ("rewards", b'["s3cret"]'))
    assert str(_failure(server.url, "s3cret")) == "status 403 'you sent Bearer REDACTED'"
    assert _post(server.url, "s3cret").content == {"rewards": ["REDACTED"]}
    assert [headers["authorization"] for _, headers, _ in server.requests] == ["Bearer s3cret"] * 2


def test_certificates_are_verified():
    for url in ("https://host/", "http://host/"):
        assert trust_of(url).verify_mode == ssl.CERT_REQUIRED
        assert trust_of(url).check_hostname


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:80/get_reward", "http://host/get_reward"),
        ("https://user:pass@host:8000/x?key=1#part", "https://host:8000/x"),
        ("/other/path?key=1", "/other/path"),
        ("http://[::1", "an address that is not a URL"),
    ],
)
def test_an_address_is_shown_without_secrets(url, shown):
    assert shown_url(url) == shown


def test_a_question_without_a_body_is_a_get(chaos):
    server = chaos(503, 200)
    limits = Limits(timeout=PATIENT, deadline=PATIENT, retries=3, max_response_bytes=1 << 20)
    answer = get_json(server.url, "secret", limits, trust_of(server.url))
    assert (answer.content, answer.attempts, server.requests[1][0]) == (FINE, 2, "GET /get_reward HTTP/1.1")


def test_an_empty_answer_is_none_where_it_is_expected(chaos):
    server = chaos((200, b""))
    limits = Limits(timeout=PATIENT, deadline=PATIENT, retries=0, max_response_bytes=1 << 20)
    assert post_json(server.url, b"{}", None, limits, trust_of(server.url), may_be_empty=True).content is None
