"""Tests of rlhf.report.watching.server: who gets what from it, and how it begins and ends."""

import base64
import hashlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from rlhf.cli import main
from rlhf.report.watching.server import MOST_CONNECTIONS, make_server
from rlhf.report.watching.watched import Watched


@pytest.fixture
def port(planting, tmp_path):
    server = make_server(Watched([planting.plant(tmp_path, steps=10)]), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port, path="/", method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_the_page_loads_its_own_two_parts_and_asks_its_own_server_alone(port):
    answer, page = ask(port)
    assert answer.status == 200 and "Served by <code>rlhf watch</code>" in page
    policy = answer.getheader("Content-Security-Policy")
    assert policy in page.replace("&#39;", "'")
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    for kind in ("style", "script"):
        (content,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert answer.getheader("X-Content-Type-Options") == "nosniff" and answer.getheader("X-Frame-Options") == "DENY"
    assert answer.getheader("Cache-Control") == "no-store"


def test_the_version_is_that_of_the_page(port):
    answer, text = ask(port, "/version")
    assert answer.getheader("Content-Type") == "application/json; charset=utf-8"
    assert f'data-version="{json.loads(text)["version"]}"' in ask(port)[1]


@pytest.mark.parametrize("path", ["/ppo/metrics.jsonl", "/../ppo/config.yaml", "//etc/passwd", "/%2e%2e/x", "/?x"])
def test_no_file_is_served(port, path):
    answer, text = ask(port, path)
    assert (answer.status, text) == (404, "watch: there is nothing but /\n")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_host_name_is_refused(port, host):
    assert ask(port, host=host)[0].status == 403
    assert ask(port, "/version", host=host)[0].status == 403


def test_the_names_of_this_machine_are_known(port):
    for host in ("localhost", f"127.0.0.1:{port}", "LOCALHOST:1"):
        assert ask(port, "/version", host=host)[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "<x>"])
def test_other_methods_are_refused(port, method):
    answer, text = ask(port, method=method)
    assert (answer.status, text, answer.getheader("Allow")) == (405, "watch: method not allowed\n", "GET, HEAD")


def raw(port, request):
    """All bytes of the answer to a request as it is written."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.encode())
        with connection.makefile("rb") as answer:
            return answer.read()


def test_head_has_no_body(port):
    answer, text = ask(port, method="HEAD")
    assert answer.status == 200 and text == "" and int(answer.getheader("Content-Length")) > 1000
    assert raw(port, "HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").endswith(b"\r\n\r\n")


def test_a_request_with_two_host_names_is_refused(port):
    for second in ("evil.example", "localhost"):
        hosts = f"Host: localhost\r\nHost: {second}\r\n"
        assert b" 403 " in raw(port, f"GET /version HTTP/1.1\r\n{hosts}\r\n").splitlines()[0]


def test_an_answered_connection_frees_its_place(port):
    for _ in range(MOST_CONNECTIONS + 1):
        assert ask(port, "/version")[0].status == 200


@pytest.mark.slow
def test_silent_connections_take_a_bounded_number_of_places(port):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(MOST_CONNECTIONS + 1)]
    silent[-1].settimeout(10)
    assert silent[-1].recv(1) == b""  # closed at once
    for each in silent:
        each.close()


def test_a_port_that_is_taken_is_refused_in_one_line(port, tmp_path, capsys):
    assert main(["watch", str(tmp_path), "--port", str(port)]) == 2
    assert f"watch: cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["{}/a/b"], "neither it nor its parent exists"), (["{}", "--port", "70000"], "[0, 65535]")],
)
def test_what_cannot_be_watched_is_refused(tmp_path, capsys, arguments, message):
    assert main(["watch", *(each.replace("{}", str(tmp_path)) for each in arguments)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_says_its_address_and_ends_normally_on_a_signal(tmp_path, environment):
    command = [sys.executable, "-m", "rlhf", "watch", str(tmp_path / "run")]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line).group(1))
        assert "Nothing to show yet" in ask(port)[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
