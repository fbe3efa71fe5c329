"""Tests of rlhf.evaluation.output."""

import json

import numpy as np

from rlhf.data.records import Prompt
from rlhf.evaluation.output import json_lines, judged_rows, response_rows
from rlhf.evaluation.respond import Response

PROMPT = Prompt(text="a", ids=(5,), raw="a", columns={})
RESPONSE = Response(text="\u00e9\n\x1b[2J\u2028", ids=(6, 7), ended=True)


def test_a_response_is_one_line_of_json():
    lines = json_lines(response_rows([PROMPT, PROMPT], [RESPONSE, RESPONSE]))
    rows = [json.loads(line) for line in lines.split("\n")[:-1]]
    assert rows == [{"prompt": "a", "response": RESPONSE.text, "ended": True, "tokens": 2}] * 2


def test_lines_for_a_terminal_are_ascii_and_mean_the_same():
    line = json_lines(response_rows([PROMPT], [RESPONSE]), ensure_ascii=True)
    assert line.isascii() and line[:-1].isprintable()
    assert json.loads(line)["response"] == RESPONSE.text


def test_a_judged_response_has_the_scores_of_every_judge_that_gave_one():
    judges = {"gold": np.array([1.0, 2.0]), "reward": np.array([np.nan, 3.0])}
    rows = judged_rows([{"response": "a"}, {"response": "b"}], np.array([0.5, 1.5]), judges)
    assert rows == [
        {"response": "a", "kl": 0.5, "scores": {"gold": 1.0}},
        {"response": "b", "kl": 1.5, "scores": {"gold": 2.0, "reward": 3.0}},
    ]
