"""A server as a reward: what goes out, what comes back, and what is refused."""

import pytest

from rlhf.errors import ConfigError, RewardError
from rlhf.rewards.kinds.http import HttpReward
from rlhf.rewards.protocol import Episode, Reward


def _reward(url, **options):
    settings = {"timeout": 60.0, "deadline": 60.0, "retries": 3, "max_response_bytes": 1 << 20}
    return HttpReward(url, **(settings | options))


def _episode(prompt="How?", completion=" So.", **columns):
    return Episode(prompt=prompt, completion=completion, columns=columns, prompt_ids=(5, 6), response_ids=(7, 2))


EPISODES = [_episode(answer=4), _episode("Why?", " It is.", answer=[1, None])]


def test_texts_go_out_in_the_form_of_openrlhf_and_scores_come_back(chaos):
    server = chaos(200)
    reward: Reward = _reward(server.url)
    assert reward.score(EPISODES) == [1.5, -2.0]
    reward.close()
    line, headers, body = server.requests[0]
    assert line == "POST /get_reward HTTP/1.1"
    assert (headers["content-type"], headers.get("authorization")) == ("application/json", None)
    assert body == {"query": ["How? So.", "Why? It is."], "prompts": ["How?", "Why?"], "labels": ["", ""]}


def test_labels_come_from_a_column(chaos):
    server = chaos(200)
    _reward(server.url, label_column="answer").score(EPISODES)
    assert server.requests[0][2]["labels"] == [4, [1, None]]
    with pytest.raises(RewardError, match=r"no column 'solution' for the labels, found \['answer'\]$"):
        _reward(server.url, label_column="solution").score(EPISODES)
    for value in (object(), float("nan")):
        with pytest.raises(RewardError, match="column 'answer' is not JSON"):
            _reward(server.url, label_column="answer").score([_episode(answer=value)])


def test_with_the_policys_tokenizer_special_tokens_are_spelled_out(chaos, tiny_tokenizer):
    server = chaos(200)
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
    with pytest.raises(RewardError, match="prompts are messages, which only the policy's tokenizer can render$"):
        _reward(server.url).score([ended])


def test_any_text_survives_the_way(chaos):
    server = chaos(200)
    texts = ["\u00e9\U0001f600\u2028", 'quote " \\ \x00']
    _reward(server.url).score([_episode(text) for text in texts])
    assert server.requests[0][2]["prompts"] == texts


def test_no_episodes_are_no_request(chaos):
    server = chaos(200)
    assert _reward(server.url).score([]) == []
    assert server.requests == []


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        ((200, b"[1.5, -2]"), r'expected an answer {"rewards": \[...\]}, got \[1.5, -2\]$'),
        ((200, b'{"scores": [1.5, -2]}'), r"expected an answer .*, got {'scores': \[1.5, -2\]}$"),
        (("rewards", b"[1.5, NaN]"), r"score 1 is nan for the prompt 'Why\?'; expected one finite float per response$"),
        (("rewards", b"[Infinity, 0]"), "score 0 is inf"),
        (("rewards", b"[1e999, 0]"), "score 0 is inf"),
        (("rewards", b"[1.5]"), "expected 2 floats, got list of 1$"),
        (("rewards", b"[1.5, 2, 3]"), "expected 2 floats, got list of 3$"),
        (("rewards", b'["1.5", "2"]'), "score 0 is str '1.5'"),
        (("rewards", b"[1.5, null]"), "score 1 is None"),
        (("rewards", b'["true", 0]'), "score 0 is str 'true'"),
        (("rewards", b"[[1.5], [2]]"), r"score 0 is list \[1.5\]"),
        (("rewards", b"null"), "expected 2 floats, got None$"),
        (("rewards", b'"ab"'), "expected 2 floats, got str of 2$"),
        (("rewards", b"1.5"), "expected 2 floats, got float$"),
        ((400, b"no"), "status 400 'no'$"),
    ],
)
def test_an_answer_that_is_not_one_finite_number_an_episode_is_refused(chaos, behaviour, cause):
    server = chaos(behaviour)
    with pytest.raises(RewardError, match=f"^reward server {server.url} \\(1 attempt\\): {cause}") as caught:
        _reward(server.url + "?key=hidden").score(EPISODES)
    assert len(server.requests) == 1
    assert str(caught.value).isprintable()
    assert caught.value.exit_status == 5


def test_a_failure_tells_the_attempts(chaos):
    server = chaos(503)
    with pytest.raises(RewardError, match=rf"^reward server {server.url} \(3 attempts\): status 503 "):
        _reward(server.url, retries=2).score(EPISODES)
    server = chaos(503, ("rewards", b"[]"))
    with pytest.raises(RewardError, match=rf"^reward server {server.url} \(2 attempts\): expected 2 floats"):
        _reward(server.url).score(EPISODES)


def test_the_token_comes_from_the_environment_and_is_not_shown(chaos, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cret-s3cret")
    server = chaos(("rewards", b'["s3cret-s3cret"]'))
    with pytest.raises(RewardError, match="score 0 is str 'REDACTED'"):
        _reward(server.url, token_env="MY_TOKEN").score(EPISODES[:1])
    assert server.requests[0][1]["authorization"] == "Bearer s3cret-s3cret"


@pytest.mark.parametrize(("value", "problem"), [("", "MY_TOKEN is not set"), ("a b", "characters other than visible")])
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
