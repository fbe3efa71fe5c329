"""Tests of rlhf.config.reading.secrets."""

import pytest

from rlhf.config.reading.secrets import REDACTED, holds_secret, redacted, secret_in_url


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "hub_token",
        "password",
        "client_secret",
        "api_key",
        "WANDB_API_KEY",
        "apikey",
        "X-Api-Key",
        "private_key",
    ],
)
def test_names_of_secrets_are_known(key: str) -> None:
    assert holds_secret(key)


@pytest.mark.parametrize(
    "key", ["max_new_tokens", "microbatch_tokens", "eos_token", "tokenizer", "token_scores", "key", 3]
)
def test_other_names_are_left_alone(key: object) -> None:
    assert not holds_secret(key)


def test_secrets_are_replaced_at_every_depth_and_unset_ones_stay_null() -> None:
    value = {"token": "a", "more": [{"password": "b", "api_key": None, "steps": 1}]}
    assert redacted(value) == {"token": REDACTED, "more": [{"password": REDACTED, "api_key": None, "steps": 1}]}
    assert value["token"] == "a"


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://h/get?api_key=S", "api_key"),
        ("http://h/get?a=1&X-Access-Token=S", "X_Access_Token"),
        ("http://h/get?key=S", "key"),
        ("http://h/get?sig=", "sig"),
        ("http://h/get#access_token=S", "access_token"),
        ("http://u:p@h/get", "user or password"),
        ("http://u@h/get", "user or password"),
        ("http://h/get?model=x&max_tokens=5", None),
        ("http://[::1", None),
    ],
)
def test_a_url_tells_which_part_holds_a_secret(url: str, part: str | None) -> None:
    assert secret_in_url(url) == part
