"""Tests of benchmarks/vllm_rollouts.py and vllm_server.py; no vLLM is installed or started."""

import itertools
import sys
from pathlib import Path

import pytest

import vllm_server
from environments import LeftOut
from vllm_rollouts import COLUMNS, make_parser, server_of, table_of


def test_the_server_listens_on_this_machine_alone_and_gives_the_logprobs_it_draws_from():
    command = vllm_server.command_of(Path("python"), Path("policy"), 8123, "bfloat16", 96)
    pairs = dict(itertools.pairwise(command))
    assert pairs["--host"] == "127.0.0.1" and pairs["--logprobs-mode"] == "processed_logprobs"
    assert (pairs["--port"], pairs["--max-model-len"], pairs["--model"]) == ("8123", "96", "policy")


def test_a_server_that_ends_at_its_start_is_left_out_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_server, "LOOK_SECONDS", 0.02)
    log = tmp_path / "log"
    with (
        pytest.raises(LeftOut, match="^the server ended with status 1: .*No module named 'vllm'"),
        vllm_server.served(tmp_path, log, python=Path(sys.executable)),
    ):
        pass
    assert "No module named" in log.read_text()


def test_a_server_that_runs_already_is_taken_as_it_is():
    options = make_parser().parse_args(["--url", "http://127.0.0.1:1"])
    with server_of(options) as url:
        assert url == "http://127.0.0.1:1"


def test_each_step_is_a_row():
    row = {"step": 1, **dict.fromkeys(COLUMNS.values(), 0.25)}
    lines = table_of([row, row | {"step": 2}]).splitlines()
    assert len(lines) == 4 and lines[3].startswith("| 2 | 0.25 |")
