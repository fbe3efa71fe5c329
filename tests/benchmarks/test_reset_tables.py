"""Comparisons of runs with and without resets: what is compared with what."""

import json

import pytest

import reset_tables
from reset_tasks import VERDICT, five_sentences, verdict


def _row(task, seed, fraction, step, score, kl, tokens):
    return {
        "task": task,
        "seed": seed,
        "fraction": fraction,
        "step": step,
        "score": score,
        "kl": kl,
        "decode_tokens": tokens,
    }


def test_scores_are_read_where_every_fraction_has_been():
    curves = {
        0.0: [_row("t", 0, 0.0, 0, 1.0, 0.0, 0), _row("t", 0, 0.0, 4, 3.0, 8.0, 400)],
        0.5: [_row("t", 0, 0.5, 0, 1.0, 0.0, 0), _row("t", 0, 0.5, 4, 2.0, 2.0, 200)],
    }
    assert reset_tables.at_equal(curves, "kl") == {0.0: 1.5, 0.5: 2.0}
    assert reset_tables.at_equal(curves, "decode_tokens") == {0.0: 2.0, 0.5: 2.0}


def test_an_interval_of_three_seeds_is_student_s():
    # t(0.975, 2) = 4.303; the standard deviation of 1, 2, 3 is 1.
    assert reset_tables.interval([1.0, 2.0, 3.0]) == "2.00 [-0.48, 4.48]"


def test_differences_are_taken_within_a_seed(tmp_path):
    rows = []
    for seed, level in ((0, 0.0), (1, 10.0)):
        for fraction, gain in ((0.0, 1.0), (1.0, 3.0)):
            rows += [_row("t", seed, fraction, 0, level, 0.0, 0), _row("t", seed, fraction, 2, level + gain, 4.0, 100)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    shown = []
    reset_tables.main([str(path)], shown.append)
    assert "| 1 | 8.00 [" in shown[0]
    assert shown[0].count("2.00 [2.00, 2.00]") == 3


def test_a_fraction_that_a_seed_lacks_is_told_of_the_others(tmp_path):
    rows = [_row("t", seed, 0.0, step, float(seed), step, step) for seed in (0, 1) for step in (0, 2)]
    rows += [_row("t", 1, 0.5, step, 4.0, step, step) for step in (0, 2)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    shown = []
    reset_tables.main([str(path)], shown.append)
    assert "| 0.5 | 4.00 | 4.00 | 2.0 | 2 | 3.00 | 3.00 | 3.00 |" in shown[0]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("word " * 14 + VERDICT, 1.0),
        ("word " * 14 + VERDICT + " \n", 1.0),
        ("word " * 13 + VERDICT, 0.0),
        ("word " * 14 + VERDICT + " Or not.", 0.0),
        ("word " * 14 + VERDICT.removesuffix("."), 0.0),
        ("", 0.0),
    ],
)
def test_the_verdict_counts_at_the_end_of_a_long_review_alone(text, score):
    assert verdict(prompts=["p"], completions=[text], label=[1]) == [score]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("It is. It was! Was it? It will be... It ends.", 1.0),
        ("It is. It was! Was it? It will be... It ends. And more", 1.0),
        ("It is. It was! Was it? It will be... It ends", 0.0),
        ("It is. It was! Was it? It will be... Ends.", 0.0),
        (". . . . . . .", 0.0),
        ("It cost 1.5 and 2.5 and 3.5 and 4.5 and 5.5 more.", 0.0),
    ],
)
def test_sentences_of_two_words_count(text, score):
    assert five_sentences(prompts=["p"], completions=[text], label=[1]) == [score]
