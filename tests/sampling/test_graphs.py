"""Tests of rlhf.sampling.graphs: what is captured, replayed, forgotten, and done without."""

import pytest
import torch

from rlhf.sampling import graphs
from rlhf.sampling.graphs import CudaGraphs, Eager, agree


class Doubling:
    """A step that writes twice what it reads."""

    def __init__(self):
        self.read, self.logits, self.num_calls = torch.ones(2, 3), torch.zeros(2, 3), 0

    def __call__(self):
        self.num_calls += 1
        torch.mul(self.read, 2, out=self.logits)


def run(runner, step, key="key"):
    runner.run(key, step, step.logits)
    return step.logits[0, 0].item()


def test_an_eager_runner_calls_each_step():
    step, runner = Doubling(), Eager()
    assert [run(runner, step) for _ in range(3)] == [2, 2, 2] and step.num_calls == 3
    assert not runner.has_failed


def test_the_first_step_of_a_key_is_captured_and_the_others_are_replayed(captures):
    step, runner = Doubling(), CudaGraphs()
    assert run(runner, step) == 2
    called = step.num_calls
    for number in (5, 7):
        step.read.fill_(number)
        assert run(runner, step) == 2 * number
    assert step.num_calls == called and [graph.num_replays for graph in captures.graphs] == [3]
    run(runner, step, "other")
    assert len(runner) == 2 and captures.pools == [None, "pool"]  # the first graph's memory serves the others


def test_graphs_that_are_forgotten_are_captured_anew_in_a_new_pool(captures):
    step, runner = Doubling(), CudaGraphs()
    run(runner, step)
    runner.clear()
    assert len(runner) == 0
    step.read.fill_(4)
    assert run(runner, step) == 8
    assert captures.pools == [None, None]


def test_the_graph_that_was_not_used_for_the_longest_time_leaves(captures, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    step, runner = Doubling(), CudaGraphs()
    for key in ("a", "b", "a", "c"):
        run(runner, step, key)
    assert len(runner) == 2 and len(captures.graphs) == 3
    run(runner, step, "a")
    assert len(captures.graphs) == 3
    run(runner, step, "b")
    assert len(captures.graphs) == 4


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: operation not permitted\nmore"), ValueError(""), KeyError(1)]
)
def test_where_a_capture_fails_steps_are_called_and_one_line_says_so(monkeypatch, caplog, error):
    def capture(step, pool, device):
        raise error

    monkeypatch.setattr(graphs, "capture", capture)
    step, runner = Doubling(), CudaGraphs()
    for number in (1, 5):
        step.read.fill_(number)
        assert run(runner, step, number) == 2 * number
    assert runner.has_failed and len(runner) == 0
    [line] = caplog.messages
    assert line.startswith("decoding goes on without CUDA graphs: ") and "\n" not in line
    assert line.rpartition(": ")[2] in ("operation not permitted", "ValueError", "1")


def test_a_step_that_makes_the_host_wait_cannot_be_captured(captures, caplog):
    step, runner = Doubling(), CudaGraphs()

    def waiting():
        step()
        step.logits.add_(step.logits.max().item() * 0)

    runner.run("key", waiting, step.logits)
    assert step.logits[0, 0].item() == 2 and runner.has_failed
    assert "not permitted when stream is capturing: _local_scalar_dense" in caplog.text


def test_a_graph_that_does_not_give_what_the_step_gives_is_not_used(monkeypatch, caplog):
    class Empty:
        def replay(self):
            pass

        def pool(self):
            return None

    monkeypatch.setattr(graphs, "capture", lambda step, pool, device: Empty())
    step, runner = Doubling(), CudaGraphs()
    step.read[0, 0] = 9
    assert run(runner, step) == 18 and runner.has_failed
    assert "its replay does not give the logits of the step that was captured" in caplog.text


def test_the_step_s_own_error_is_not_hidden(captures):
    runner = CudaGraphs()

    def broken():
        raise IndexError("no such row")

    with pytest.raises(IndexError, match="no such row"):
        runner.run("key", broken, torch.zeros(1, 2))
    assert not runner.has_failed


def test_logits_agree_where_the_likeliest_tokens_have_about_the_same_logprobs():
    expected = torch.tensor([[4.0, 0.0, -9.0], [0.0, 5.0, 0.0]])
    assert agree(expected + 3, expected)  # a constant changes no probability
    assert agree(expected.bfloat16(), expected)
    found = expected.clone()
    found[1, 1] -= 3  # log softmax: -0.0134 becomes -0.2395; one more and it is -0.5514
    assert agree(found, expected)
    found[1, 1] -= 1
    assert not agree(found, expected)
    found[1, 1] = float("nan")
    assert not agree(found, expected)
    assert agree(found, found)
