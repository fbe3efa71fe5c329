import argparse

import pytest

from rlhf.errors import ConfigError
from rlhf.serving.options import ServingOptions, add_options

TOKEN = "0123456789abcdef"


def _options(*arguments):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_options(parser)
    return ServingOptions.of(parser.parse_args(["--function", "r.py:f", *arguments]))


def test_only_this_machine_may_ask_by_default():
    options = _options()
    assert (options.host, options.port, options.is_local, options.token()) == ("127.0.0.1", 8000, True, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_loopback_needs_no_token_but_may_have_one(host, monkeypatch):
    monkeypatch.setenv("RM_TOKEN", TOKEN)
    assert _options("--host", host).token() is None
    assert _options("--host", host, "--token-env", "RM_TOKEN").token() == TOKEN


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "", "192.168.1.5", "node7", "localhost.evil.example", "127.0.0.1.nip"]
)
def test_another_host_is_refused_without_a_token(host, monkeypatch):
    fix = "lets other machines in - set --token-env to the name of an environment variable with a token"
    with pytest.raises(ConfigError, match=fix):
        _options("--host", host).token()
    monkeypatch.setenv("RM_TOKEN", TOKEN)
    assert _options("--host", host, "--token-env", "RM_TOKEN").token() == TOKEN


@pytest.mark.parametrize("value", [None, "", TOKEN[1:], TOKEN + " ", TOKEN + "\n", TOKEN + "\u00e9"])
def test_a_weak_or_missing_token_is_refused_without_showing_it(value, monkeypatch):
    if value is None:
        monkeypatch.delenv("RM_TOKEN", raising=False)
    else:
        monkeypatch.setenv("RM_TOKEN", value)
    for host in ("0.0.0.0", "127.0.0.1"):
        with pytest.raises(ConfigError, match="--token-env RM_TOKEN: expected at least 16 visible ASCII") as caught:
            _options("--host", host, "--token-env", "RM_TOKEN").token()
        assert TOKEN[1:] not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--timeout", "0"], "--timeout: must be above 0, got 0.0"),
        (["--timeout", "nan"], "--timeout: must be above 0, got nan"),
        (["--max-body-bytes", "-1"], "--max-body-bytes: must be above 0, got -1"),
        (["--max-items", "0"], "--max-items: must be above 0"),
        (["--max-text-chars", "0"], "--max-text-chars: must be above 0"),
        (["--max-connections", "1"], "--max-connections: must be at least 2, got 1"),
        (["--port", "65536"], r"--port: must be in \[0, 65535\], got 65536"),
        (["--port", "-1"], "--port: must be in"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, problem):
    with pytest.raises(ConfigError, match=f"^serve-reward: {problem}"):
        _options(*arguments)


def test_one_reward_is_served():
    with pytest.raises(argparse.ArgumentError, match="not allowed with argument"):
        _options("--model", "rm")
    fields = {name: getattr(_options(), name) for name in ServingOptions.__slots__}
    with pytest.raises(ConfigError, match="give --model DIR or --function"):
        ServingOptions(**(fields | {"function": None}))
