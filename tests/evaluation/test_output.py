"""Tests of rlhf.evaluation.output."""

import json

import pytest

from rlhf.data.records import Prompt
from rlhf.errors import CheckpointError
from rlhf.evaluation.output import json_lines, response_rows, write_output
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


def test_directories_above_a_file_are_made(tmp_path):
    write_output(tmp_path / "deep" / "file", "text")
    assert (tmp_path / "deep" / "file").read_text() == "text"


def test_a_file_that_cannot_be_written_is_a_checkpoint_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="out.jsonl: cannot be written"):
        write_output(tmp_path / "file" / "out.jsonl", "text")
