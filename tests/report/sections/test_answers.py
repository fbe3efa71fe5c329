"""Tests of rlhf.report.sections.answers."""

import json
import shutil

from rlhf.report.reading.run import read_run
from rlhf.report.sections.answers import EACH, MOST_CHARACTERS, cards_of, clipped, followed_of


def test_the_best_the_worst_and_the_most_disputed_are_chosen_by_their_scores(planting, tmp_path):
    run = planting.plant(tmp_path)
    scores = {"sft": [(0.0, 0.0)] * 16, "ppo": [(float(n), float(n) if n != 8 else -90.0) for n in range(16)]}
    for name, pairs in scores.items():
        path = run / "evaluate" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [{**row, "scores": {"gold": g, "reward": r}} for row, (g, r) in zip(rows, pairs, strict=True)]
        planting.write_rows(path, changed)
    cards = cards_of(read_run(run))
    kinds = {kind: [card.gain for card in cards.cards if kind in card.kinds] for kind in cards.kinds}
    assert sorted(kinds["best"]) == [float(n) for n in range(8, 16)]
    assert sorted(kinds["worst"]) == [float(n) for n in range(8)]
    assert 8.0 in kinds["disputed"] and len(kinds["random"]) == EACH
    assert [version.label for version in cards.cards[0].versions] == ["sft", "ppo"] and cards.lacking == ""
    assert "gold 15" in cards.cards[0].versions[1].facts


def test_answers_without_scores_are_shown_and_what_is_lacking_is_said(planting, tmp_path):
    run = planting.plant(tmp_path)
    shutil.rmtree(run / "evaluate")
    planting.write_evaluation(run / "evaluate", planting.comparison(), with_scores=False)
    cards = cards_of(read_run(run))
    assert cards.kinds == ["random"] and len(cards.cards) == EACH
    assert "best and worst are not known" in cards.lacking


def test_without_an_evaluation_the_first_and_the_last_sample_of_a_prompt_are_compared(planting, tmp_path):
    run = planting.plant(tmp_path)
    shutil.rmtree(run / "evaluate")
    cards = cards_of(read_run(run))
    steps = [[int(version.label.split()[1]) for version in card.versions] for card in cards.cards]
    assert steps and all(len(pair) == 2 and pair[0] < pair[1] for pair in steps)
    assert all(card.gain is not None for card in cards.cards) and cards.source == "104 samples of training"


def test_a_prompt_is_followed_over_the_steps_that_sampled_it(planting, tmp_path):
    followed = followed_of(read_run(planting.plant(tmp_path)))
    assert followed and all(len(each.versions) > 1 for each in followed)
    steps = [int(version.label.split()[1]) for version in followed[0].versions]
    assert steps == sorted(set(steps))


def test_a_long_text_is_cut_and_says_so():
    assert clipped("x" * MOST_CHARACTERS) == "x" * MOST_CHARACTERS
    assert clipped("x" * (MOST_CHARACTERS + 7)).endswith(" [... 7 more characters]")
