"""Tests of rlhf.evaluation.output."""

import json

from rlhf.data.records import Prompt
from rlhf.evaluation.output import json_lines, response_rows
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
