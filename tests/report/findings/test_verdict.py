"""Tests of rlhf.report.findings.verdict."""

import shutil

import pytest

from rlhf.report.findings.detectors import findings
from rlhf.report.findings.verdict import verdict
from rlhf.report.reading.run import read_run


def of(path):
    run = read_run(path)
    return verdict(run, findings(run))


@pytest.mark.parametrize(
    ("gold", "reward", "tone", "headline"),
    [
        (0.88, 0.9, "good", "Better"),
        (0.52, 0.9, "unclear", "No difference shown"),
        (0.3, 0.3, "bad", "Worse"),
        (0.3, 0.9, "bad", "Worse, with 1 warning"),
        (None, 0.9, "unclear", "Scores higher; no independent judge looked"),
        (None, 0.3, "bad", "Worse"),
    ],
)
def test_the_independent_judge_decides_where_there_is_one(planting, tmp_path, gold, reward, tone, headline):
    found = of(planting.plant(tmp_path, evaluation=planting.comparison(gold, reward)))
    assert (found.tone, found.headline) == (tone, headline)
    assert any("of 256 held-out prompts against sft" in sentence for sentence in found.evidence)
    assert "ppo is 11 nats per sequence from the reference." in found.evidence
    assert any("was trained on" in sentence for sentence in found.evidence) == (gold is None)


def test_a_warning_takes_the_green_from_a_good_verdict(planting, tmp_path):
    found = of(planting.plant(tmp_path, planting.ILL["entropy-collapse"]))
    assert (found.tone, found.headline) == ("unclear", "Better, with 1 warning")


@pytest.mark.parametrize(
    ("start", "end", "headline"),
    [
        (-1.0, 1.0, "The training score rose; no evaluation looked"),
        (1.0, -1.0, "The training score fell"),
        (0.0, 0.0, "The score did not move beyond its noise"),
    ],
)
def test_without_an_evaluation_the_training_score_is_told(planting, tmp_path, start, end, headline):
    run = planting.plant(tmp_path, {"objective/scores": (planting.rising(start, end), 0.15)})
    shutil.rmtree(run / "evaluate")
    assert of(run).headline == headline


def test_a_run_of_a_few_steps_has_no_verdict(planting, tmp_path):
    run = planting.plant(tmp_path)
    planting.write_rows(run / "ppo" / "metrics.jsonl", planting.metrics({})[:3])
    shutil.rmtree(run / "evaluate")
    assert of(run).headline == "No verdict" and "3 steps" in of(run).evidence[0]
