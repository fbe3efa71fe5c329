"""The client against a server that does everything wrong; every failure ends by the deadline with one line."""

import contextlib
import json
import socket
import threading
import time

import pytest

from rlhf.errors import ConfigError, RewardError
from rlhf.rewards import json_exchange
from rlhf.rewards.http import HttpReward
from rlhf.rewards.protocol import Episode, Reward

PATIENT = 60.0  # for outcomes that come by themselves
DEADLINE = 0.5  # for those that only the deadline ends
BOUND = 20 * DEADLINE  # a machine may be busy; without the deadline each of them would last for minutes


class Chaos:
    """Serves one behaviour a connection, the last one for ever; a behaviour is a function of the connection."""

    def __init__(self, *behaviours):
        self.requests = []
        self.closing = threading.Event()
        self._behaviours = list(behaviours)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/get_reward"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            behaviour = self._behaviours[min(len(self.requests), len(self._behaviours) - 1)]
            self.requests.append(None)
            threading.Thread(
                target=self._serve, args=(connection, behaviour, len(self.requests) - 1), daemon=True
            ).start()

    def _serve(self, connection, behaviour, number):
        with connection, contextlib.suppress(OSError):
            if behaviour is not slam:
                self.requests[number] = _request(connection)
            behaviour(self, connection)

    def close(self):
        self.closing.set()
        self._listener.close()


@pytest.fixture
def chaos():
    servers = []

    def start(*behaviours):
        servers.append(Chaos(*behaviours))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _request(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return lines[0], headers, json.loads(body)


def answer(status=200, body=b'{"rewards": [1.5, -2]}', *headers):
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return lambda server, connection: connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)


def rewards(text):
    return answer(200, b'{"rewards": ' + text.encode() + b"}")


def hang(server, connection):
    server.closing.wait()


def slam(server, connection):
    """Close with the request unread, which resets the connection."""
    connection.recv(10)


def truncate(server, connection):
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"rewards": [1.5')


def truncate_chunks(server, connection):
    connection.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"rewards"')


def drip(start):
    def behave(server, connection):
        connection.sendall(start)
        while not server.closing.wait(0.02):
            connection.sendall(b"a")

    return behave


def endless(server, connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not server.closing.is_set():
        connection.sendall(b" " * 65536)


def _reward(url, **options):
    settings = {"timeout": PATIENT, "deadline": PATIENT, "retries": 3, "max_response_bytes": 1 << 20}
    return HttpReward(url, **(settings | options))


def _episode(prompt="How?", completion=" So.", **columns):
    return Episode(prompt=prompt, completion=completion, columns=columns, prompt_ids=(5, 6), response_ids=(7, 2))


EPISODES = [_episode(answer=4), _episode("Why?", " It is.", answer=[1, None])]


def test_texts_go_out_in_the_form_of_openrlhf_and_scores_come_back(chaos):
    server = chaos(answer())
    reward: Reward = _reward(server.url)
    assert reward.score(EPISODES) == [1.5, -2.0]
    reward.close()
    line, headers, body = server.requests[0]
    assert line == "POST /get_reward HTTP/1.1"
    assert (headers["content-type"], headers.get("authorization")) == ("application/json", None)
    assert body == {"query": ["How? So.", "Why? It is."], "prompts": ["How?", "Why?"], "labels": ["", ""]}


def test_labels_come_from_a_column(chaos):
    server = chaos(answer())
    _reward(server.url, label_column="answer").score(EPISODES)
    assert server.requests[0][2]["labels"] == [4, [1, None]]
    with pytest.raises(RewardError, match=r"no column 'solution' for the labels, found \['answer'\]$"):
        _reward(server.url, label_column="solution").score(EPISODES)
    for value in (object(), float("nan")):
        with pytest.raises(RewardError, match="column 'answer' is not JSON"):
            _reward(server.url, label_column="answer").score([_episode(answer=value)])


def test_with_the_policys_tokenizer_special_tokens_are_spelled_out(chaos, tiny_tokenizer):
    server = chaos(answer())
    prompt, response = tiny_tokenizer("<bos>U:hi\nA:")["input_ids"], tiny_tokenizer("So<eos>")["input_ids"]
    messages = [{"role": "user", "content": "hi"}]
    ended, cut = (
        Episode(prompt=messages, completion="So", columns={}, prompt_ids=tuple(prompt), response_ids=tuple(ids))
        for ids in (response, response[:-1])
    )
    _reward(server.url, tokenizer=tiny_tokenizer).score([ended, cut])
    body = server.requests[0][2]
    assert body["query"] == ["<bos>U:hi\nA:So<eos>", "<bos>U:hi\nA:So"]
    assert body["prompts"] == ["<bos>U:hi\nA:"] * 2
    with pytest.raises(RewardError, match="prompts are messages, which only the policy's tokenizer makes a text of$"):
        _reward(server.url).score([ended])


def test_any_text_survives_the_way(chaos):
    server = chaos(answer())
    texts = ["\u00e9\U0001f600\u2028", 'quote " \\ \x00']
    _reward(server.url).score([_episode(text) for text in texts])
    assert server.requests[0][2]["prompts"] == texts


def test_no_episodes_are_no_request(chaos):
    server = chaos(answer())
    assert _reward(server.url).score([]) == []
    assert server.requests == []


@pytest.mark.parametrize("failure", [answer(503, b"busy"), answer(500), answer(429), slam, truncate, truncate_chunks])
def test_what_may_pass_is_tried_again(chaos, failure):
    server = chaos(failure, failure, answer())
    assert _reward(server.url).score(EPISODES) == [1.5, -2.0]
    assert len(server.requests) == 3


def test_an_attempt_that_hangs_is_given_up_after_its_timeout(chaos):
    server = chaos(hang, answer())
    assert _reward(server.url, timeout=1.0).score(EPISODES) == [1.5, -2.0]


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (answer(503, b"too\nbusy"), r"status 503 'too\\nbusy'"),
        (answer(502, b""), "status 502 ''"),
        (slam, "(Read|Write|RemoteProtocol)Error: "),
        (truncate, "RemoteProtocolError: .*closed connection"),
        (truncate_chunks, "RemoteProtocolError: .*closed connection"),
    ],
)
def test_after_the_last_attempt_the_message_has_address_attempts_and_cause(chaos, failure, cause):
    server = chaos(failure)
    with pytest.raises(RewardError) as caught:
        _reward(server.url, retries=2).score(EPISODES)
    assert len(server.requests) == 3
    assert caught.match(f"^reward server {server.url} \\(3 attempts\\): {cause}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("failure", "cause"),
    [
        (answer(400, b'{"detail": "no such key"}'), 'status 400 \'{"detail": "no such key"}\'$'),
        (answer(401), "status 401"),
        (answer(404), "status 404"),
        (answer(413, b"x" * 100_000), "status 413 'x{76}...$"),
        (answer(204, b""), "status 204 ''$"),
        (answer(200, b'{"rewards": [1.5'), r"the answer is not JSON \(JSONDecodeError\): "),
        (answer(200, b"<html>\x1b[31m"), "the answer is not JSON .*: '<html>.x1b.31m'$"),
        (answer(200, b"\xff\xfe\xff"), r"the answer is not JSON \(UnicodeDecodeError\)"),
        (answer(200, b"[" * 100_000), r"the answer is not JSON \((RecursionError|JSONDecodeError)\): "),
        (answer(200, b"1" * 5000), r"the answer is not JSON \(ValueError\)"),
        (answer(200, b"[1.5, -2]"), r'expected an answer {"rewards": \[...\]}, got \'?\[1.5, -2\]'),
        (answer(200, b'{"scores": [1.5, -2]}'), 'expected an answer {"rewards"'),
        (answer(200, b"\x1f\x8b", "Content-Encoding: gzip"), "the answer is compressed; expected plain JSON$"),
        (answer(200, b"x" * 10_000_000), "the answer is larger than 1048576 bytes$"),
        (endless, "the answer is larger than 1048576 bytes$"),
        (rewards("[1.5, NaN]"), "score 1 is nan for the prompt 'Why.'; expected one finite float a response$"),
        (rewards("[Infinity, 0]"), "score 0 is inf"),
        (rewards("[1e999, 0]"), "score 0 is inf"),
        (rewards("[1.5]"), "expected 2 floats, got list of 1$"),
        (rewards("[1.5, 2, 3]"), "expected 2 floats, got list of 3$"),
        (rewards('["1.5", "2"]'), "score 0 is str '1.5'"),
        (rewards("[1.5, null]"), "score 1 is None"),
        (rewards("[true, false]"), "score 0 is True"),
        (rewards("[[1.5], [2]]"), r"score 0 is list \[1.5\]"),
        (rewards("null"), "expected 2 floats, got None$"),
        (rewards('"ab"'), "expected 2 floats, got str of 2$"),
        (rewards("1.5"), "expected 2 floats, got float$"),
    ],
)
def test_what_would_not_change_is_not_tried_again(chaos, failure, cause):
    server = chaos(failure)
    with pytest.raises(RewardError) as caught:
        _reward(server.url).score(EPISODES)
    assert len(server.requests) == 1
    assert caught.match(f"^reward server {server.url} \\(1 attempt\\): {cause}")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_its_target_is_named_without_secrets(chaos, status):
    other = chaos(answer())
    target = other.url.replace("http://", "http://user:hidden@") + "?key=hidden"
    server = chaos(answer(status, b"", f"Location: {target}"))
    with pytest.raises(RewardError) as caught:
        _reward(server.url).score(EPISODES)
    assert caught.match(f"status {status} redirects to {other.url}; redirects are not followed - give that address$")
    assert (len(server.requests), other.requests) == (1, [])


@pytest.mark.parametrize(
    "failure",
    [
        hang,
        drip(b"HTTP/1.1 200 OK\r\nX: "),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        drip(b"HTTP/1.1 503 X\r\nContent-Length: 100000\r\n\r\n"),
    ],
    ids=["hang", "drip of headers", "drip of the body", "drip of an error"],
)
@pytest.mark.parametrize("options", [{}, {"timeout": DEADLINE / 3, "retries": 1000}], ids=["one attempt", "many"])
def test_the_deadline_holds_whatever_the_server_does(chaos, failure, options):
    server = chaos(failure)
    start = time.monotonic()
    with pytest.raises(RewardError) as caught:
        _reward(server.url, deadline=DEADLINE, **options).score(EPISODES)
    assert time.monotonic() - start < BOUND
    assert caught.match(r"^reward server .* attempts?\): (no complete answer within the|status 503)")
    assert caught.match("deadline of 0.5 s$")


def test_the_deadline_holds_when_nothing_can_be_cancelled(chaos, monkeypatch):
    released = threading.Event()

    def look_up(*args, **kwargs):
        released.wait(60)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    start = time.monotonic()
    with pytest.raises(RewardError, match="deadline of 0.5 s$"):
        _reward("http://name.invalid/", deadline=DEADLINE, retries=0).score(EPISODES)
    elapsed = time.monotonic() - start
    released.set()
    assert elapsed < BOUND


@pytest.mark.parametrize("header", ["Retry-After: 3600", "Retry-After: Fri, 31 Dec 2999 23:59:59 GMT"])
def test_a_wait_that_the_server_asks_for_is_not_begun_beyond_the_deadline(chaos, header):
    server = chaos(answer(429, b"", header))
    start = time.monotonic()
    with pytest.raises(
        RewardError, match=r"\(1 attempt\): status 429 ''; waiting .* more would pass the deadline of 60"
    ):
        _reward(server.url).score(EPISODES)
    assert time.monotonic() - start < PATIENT / 2
    assert len(server.requests) == 1


def test_a_wait_that_the_server_asks_for_is_honoured(chaos):
    server = chaos(answer(429, b"", "Retry-After: 1"), answer())
    start = time.monotonic()
    assert _reward(server.url).score(EPISODES) == [1.5, -2.0]
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize("header", ["", "soon", "-5", "nan", "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 99 Dec"])
def test_a_wait_that_cannot_be_read_is_none(header):
    assert json_exchange._retry_after(header) == 0


def test_waits_double_up_to_a_limit_and_are_spread_over_half_their_length():
    longest = [json_exchange.back_off(attempts, lambda: 1.0) for attempts in (1, 2, 3, 9, 5000)]
    assert longest == [0.1, 0.2, 0.4, 10.0, 10.0]
    assert json_exchange.back_off(3, lambda: 0.0) == 0.2


def test_a_server_that_is_not_there_is_a_connection_error():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(RewardError, match=r"\(2 attempts\): ConnectError: .*Connect"):
        _reward(url, retries=1).score(EPISODES)


def test_a_running_event_loop_is_not_in_the_way(chaos):
    import asyncio

    async def notebook_cell():
        return _reward(chaos(answer()).url).score(EPISODES)

    assert asyncio.run(notebook_cell()) == [1.5, -2.0]


def test_the_token_is_sent_and_never_shown(chaos, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret-s3cret")
    server = chaos(answer(403, b"you sent Bearer s3cret-s3cret"), rewards('["s3cret-s3cret"]'))
    reward = _reward(server.url + "?key=s3cret", token_env="MY_TOKEN")
    for cause in ("status 403 'you sent Bearer REDACTED'", "score 0 is str 'REDACTED'"):
        with pytest.raises(RewardError) as caught:
            reward.score(EPISODES[:1])
        assert cause in str(caught.value)
        assert "s3cret" not in str(caught.value)
    assert [headers["authorization"] for _, headers, _ in server.requests] == ["bearer s3cret-s3cret"] * 2


@pytest.mark.parametrize(("value", "problem"), [("", "MY_TOKEN is not set"), ("a b", "other characters than visible")])
def test_a_token_that_cannot_be_sent_is_refused_at_the_door(monkeypatch, value, problem):
    monkeypatch.setenv("MY_TOKEN", value)
    with pytest.raises(ConfigError, match=problem):
        _reward("http://127.0.0.1/", token_env="MY_TOKEN")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://host/x", "reward server ftp://host/x: expected an http or https address with a host"),
        ("host:8000/x", "expected an http or https address with a host"),
        ("http:///x", "expected an http or https address with a host"),
        ("file:///etc/passwd", "expected an http or https address with a host"),
        ("http://[::1", "url is not a URL"),
        ("https://user:pass@host/x?key=pass", "^reward server https://host/x: the url holds a user or a password"),
    ],
)
def test_other_addresses_are_refused_at_the_door(url, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        _reward(url)
    assert "pass@" not in str(caught.value) and "key=" not in str(caught.value)


@pytest.mark.parametrize("name", ["timeout", "deadline", "max_response_bytes", "retries"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_limits_out_of_range_are_refused_at_the_door(name, value):
    with pytest.raises(ConfigError, match=name):
        _reward("http://127.0.0.1/", **{name: value})
