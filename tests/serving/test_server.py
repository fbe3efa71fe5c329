"""The whole server as a process of its own, and our client before it."""

import re
import signal
import socket
import subprocess
import sys

import httpx2
import pytest
import torch

from rlhf.errors import ConfigError, RewardError
from rlhf.rewards.kinds.http import HttpReward
from rlhf.rewards.kinds.model import ModelReward
from rlhf.rewards.protocol import Episode
from rlhf.serving import serve
from rlhf.serving.options import ServingOptions

TOKEN = "0123456789abcdef"
FUNCTION = """
import time
def score(prompts, completions, labels):
    if "sleep" in completions:
        time.sleep(60)
    return [len(c) + (l or 0) for c, l in zip(completions, labels)]
"""


@pytest.fixture
def start(tmp_path, environment):
    """`start("--model", DIR)` runs `rlhf serve-reward` on a free port and returns process, address and log file."""
    processes, own = [], {**environment, "RM_TOKEN": TOKEN}

    def run(*arguments):
        log = tmp_path / f"log-{len(processes)}"
        command = [sys.executable, "-m", "rlhf", "serve-reward", "--port", "0", *arguments]
        with log.open("w") as stderr:
            process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=stderr, text=True)
        processes.append(process)
        line = process.stdout.readline()
        match = re.fullmatch(r"serving .* on (http://127\.0\.0\.1:\d+/get_reward)\n", line)
        assert match, line + log.read_text()
        return process, match[1], log

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def function(tmp_path):
    (tmp_path / "served.py").write_text(FUNCTION)
    return f"{tmp_path / 'served.py'}:score"


def _client(url, **options):
    settings = {"timeout": 60.0, "deadline": 120.0, "retries": 5, "max_response_bytes": 1 << 20}
    return HttpReward(url, **(settings | options))


def _episode(tokenizer, prompt, completion, end="<eos>", **columns):
    ids = [tuple(tokenizer(text)["input_ids"]) for text in (prompt, completion + end)]
    return Episode(prompt=prompt, completion=completion, columns=columns, prompt_ids=ids[0], response_ids=ids[1])


def _end(process, number):
    process.send_signal(number)
    return process.wait(60)


@pytest.mark.slow
def test_our_client_and_our_server_give_the_scores_of_the_local_model(start, directory, tiny_tokenizer):
    process, url, log = start("--model", directory, "--precision", "float32", "--device", "cpu")
    episodes = [
        _episode(tiny_tokenizer, "<bos>U:hi\nA:", "So.\n\nIt is"),
        _episode(tiny_tokenizer, "A film", " so good", end=""),
        _episode(tiny_tokenizer, "A film", " so good"),
        _episode(tiny_tokenizer, "Why", ""),
    ]
    local = ModelReward(directory, tiny_tokenizer, dtype=torch.float32, device=torch.device("cpu"))
    scores = _client(url, tokenizer=tiny_tokenizer).score(episodes)
    # float32 in another process, maybe with other kernels: some hundred roundings of 2^-24
    assert scores == pytest.approx(local.score(episodes), rel=1e-4, abs=1e-5)
    assert len(set(scores)) == 4
    with pytest.raises(
        RewardError, match=rf"^reward server {url} \(1 attempt\): status 413 .*257 tokens, the model 256"
    ):
        _client(url).score([_episode(tiny_tokenizer, "a" * 200, "b" * 57)])
    assert _end(process, signal.SIGTERM) == 0
    assert "film" not in log.read_text()


@pytest.mark.slow
def test_a_function_is_served_to_those_who_have_the_token(start, function, tiny_tokenizer, monkeypatch):
    process, url, log = start("--function", function, "--token-env", "RM_TOKEN", "--max-body-bytes", "100000")
    monkeypatch.setenv("CLIENT_TOKEN", TOKEN)
    episodes = [_episode(tiny_tokenizer, "Hi", "abc", answer=10), _episode(tiny_tokenizer, "Hi", "de", answer=None)]
    client = _client(url, token_env="CLIENT_TOKEN", label_column="answer")
    assert client.score(episodes) == [13.0, 2.0]
    with pytest.raises(RewardError, match=r"\(1 attempt\): status 401 .*expected the header Authorization"):
        _client(url).score(episodes)
    with pytest.raises(RewardError, match=r"\(1 attempt\): status 413 "):
        client.score([_episode(tiny_tokenizer, "x" * 1000, "", answer="y" * 3_000_000)])
    assert client.score(episodes) == [13.0, 2.0]
    assert _end(process, signal.SIGINT) == 0
    text = log.read_text()
    assert "POST /get_reward 200" in text and "POST /get_reward 401" in text
    assert TOKEN not in text and "Traceback" not in text


@pytest.mark.slow
def test_a_reward_that_hangs_does_not_keep_the_server_alive(start, function):
    process, url, log = start("--function", function, "--timeout", "0.5")
    body = {"query": ["sleep"], "labels": [1]}
    assert httpx2.post(url, json=body, timeout=60).status_code == 503
    assert _end(process, signal.SIGTERM) == 0
    assert "Traceback" not in log.read_text()


def _options(**changes):
    defaults = {"model": None, "function": "no/such/file.py:score", "host": "127.0.0.1", "port": 0, "token_env": None}
    limits = {"timeout": 60.0, "max_body_bytes": 1, "max_items": 1, "max_text_chars": 1, "max_connections": 2}
    return ServingOptions(**(defaults | limits | {"precision": "float32", "device": "cpu"} | changes))


def test_a_port_in_use_is_found_before_the_reward_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use - give"):
            serve(_options(port=port))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, "no file '.*no/such/file.py'"),
        ({"model": "no/such/model", "function": None}, "no/such/model: "),
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 lets other machines in"),
        ({"host": "name.invalid", "token_env": "RM_TOKEN"}, "cannot listen on name.invalid port 0: "),
    ],
)
def test_what_cannot_be_served_is_refused(changes, problem, monkeypatch):
    monkeypatch.setenv("RM_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match=problem):
        serve(_options(**changes))


def test_localhost_that_is_another_address_is_refused(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
    with pytest.raises(ConfigError, match="--host localhost is 0.0.0.0, which other machines reach"):
        serve(_options(host="localhost"))


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"fastapi, uvicorn not installed - pip install 'rlhf-ppo\[serve\]'"):
        serve(_options())
