"""Tests of rlhf.evaluation.judges.pairwise, against a local server."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from rlhf.config.judges import OpenAIJudgeSection
from rlhf.errors import ConfigError, RewardError
from rlhf.evaluation.judges.pairwise import ChatJudge, verdict


class Endpoint:
    """A chat endpoint that prefers the longer answer; `reply` may be replaced."""

    def __init__(self):
        self.bodies, self.headers, self.statuses = [], [], []
        self.reply = lambda first, second: (
            "A" if len(first) > len(second) else "B" if len(second) > len(first) else "tie"
        )
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.bodies.append(body)
                endpoint.headers.append(dict(self.headers))
                status = endpoint.statuses.pop() if endpoint.statuses else 200
                text = body["messages"][0]["content"]
                first, second = text.split("|")[1:3]
                content = endpoint.reply(first, second)
                answer = {"choices": [{"message": {"role": "assistant", "content": content}}]} if content else {}
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/chat/completions"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def endpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_HOME", str(tmp_path))
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def judge(endpoint, **changes):
    keys = {"kind": "openai", "url": endpoint.url, "model": "m", "question": "{prompt}|{first}|{second}"}
    return ChatJudge("panel", OpenAIJudgeSection(**(keys | changes)))


def test_both_orders_are_asked_and_agreement_counts(endpoint):
    found = judge(endpoint).compare(["p", "q"], ["long one", "x"], ["short", "xyz"])
    assert found.preferences.tolist() == [1.0, 0.0]
    asked = {body["messages"][0]["content"] for body in endpoint.bodies}
    assert asked == {"p|long one|short", "p|short|long one", "q|x|xyz", "q|xyz|x"}
    assert all((body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 16) for body in endpoint.bodies)


def test_a_judge_that_always_prefers_the_first_place_decides_nothing(endpoint):
    endpoint.reply = lambda first, second: "A"
    found = judge(endpoint).compare(["p"] * 3, ["a", "b", "c"], ["d", "e", "f"])
    assert found.preferences.tolist() == [0.5] * 3
    assert found.ours_first.tolist() == [1.0] * 3 and found.theirs_first.tolist() == [0.0] * 3


def test_equal_responses_are_a_tie_unasked(endpoint):
    found = judge(endpoint).compare(["p"], ["same"], ["same"])
    assert found.preferences.tolist() == [0.5] and np.isnan(found.ours_first).all() and endpoint.bodies == []


def test_no_question_is_asked_twice_and_another_model_is_asked_anew(endpoint):
    first = judge(endpoint).compare(["p"], ["a"], ["bc"])
    again = judge(endpoint).compare(["p"], ["a"], ["bc"])
    assert len(endpoint.bodies) == 2 and first.preferences == again.preferences
    judge(endpoint, model="other").compare(["p"], ["a"], ["bc"])
    judge(endpoint, cache=False).compare(["p"], ["a"], ["bc"])
    assert len(endpoint.bodies) == 6


def test_an_answer_that_names_no_winner_is_a_tie_and_counted(endpoint):
    endpoint.reply = lambda first, second: "I like both of them."
    found = judge(endpoint).compare(["p"], ["a"], ["bc"])
    assert found.preferences.tolist() == [0.5] and found.num_unreadable == 2


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("A", 1.0), ("B.", 0.0), ("tie", 0.5), ("Tie", 0.5), ("**B**", 0.0), ("[[A]]", 1.0), ("Answer: B", 0.0),
        ("B is dull.\n\nThe answer is A.", 1.0), ("A good one is missing", None), ("AB", None), ("", None), ("b", None),
    ],
)  # fmt: skip
def test_the_last_line_names_the_winner(reply, expected):
    assert verdict(reply) == expected


def test_what_responses_hold_is_never_taken_for_a_place(endpoint):
    judge(endpoint).compare(["{second}"], ["{prompt}"], ["{first}!"])
    asked = {body["messages"][0]["content"] for body in endpoint.bodies}
    assert "{second}|{prompt}|{first}!" in asked


def test_the_token_comes_from_the_environment_and_is_sent(endpoint, monkeypatch):
    with pytest.raises(ConfigError, match="PANEL_TOKEN is not set"):
        judge(endpoint, token_env="PANEL_TOKEN")
    monkeypatch.setenv("PANEL_TOKEN", "s3cret")
    judge(endpoint, token_env="PANEL_TOKEN").compare(["p"], ["a"], ["bc"])
    assert all(headers["Authorization"] == "Bearer s3cret" for headers in endpoint.headers)


def test_a_server_that_recovers_is_asked_again_and_one_that_does_not_is_named(endpoint):
    endpoint.statuses = [503]
    assert judge(endpoint).compare(["p"], ["a"], ["bc"]).preferences.tolist() == [0.0]
    endpoint.statuses = [503] * 9
    with pytest.raises(RewardError, match=r"judge 'panel' at http://127.*1 attempt\): status 503"):
        judge(endpoint, retries=0, parallel=1).compare(["p"], ["a"], ["bcd"])


def test_an_answer_that_is_no_chat_completion_is_refused(endpoint):
    endpoint.reply = lambda first, second: None
    with pytest.raises(RewardError, match="expected an answer .* got {}"):
        judge(endpoint).compare(["p"], ["a"], ["bc"])
