"""Tests of rlhf.evaluation.judges.verdicts and audit."""

import numpy as np
import pytest

from rlhf.evaluation.judges.audit import audits
from rlhf.evaluation.judges.pairwise import Compared
from rlhf.evaluation.judges.verdicts import pairs_of, verdicts_of_pairs, verdicts_of_scores

LENGTHS = {"a": np.array([4, 4, 4, 4]), "b": np.array([6, 2, 8, 4])}


def test_pairs_are_named_with_the_later_policy_first():
    assert pairs_of(["a", "b", "c"]) == [("b", "a"), ("c", "a"), ("c", "b")]
    assert pairs_of(["a", "b", "c"], "first") == [("b", "a"), ("c", "a")]


def test_the_higher_score_wins_and_a_pair_can_be_asked_both_ways():
    scores = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([2.0, 2, 1, 5])}
    found = verdicts_of_scores(scores, LENGTHS, 1)
    assert found.preference("b", "a").tolist() == [1.0, 0.5, 0.0, 1.0]
    assert found.preference("a", "b").tolist() == [0.0, 0.5, 1.0, 0.0]
    assert found.preference("a", "c") is None


def test_a_prompt_without_a_score_is_left_out_for_all_policies_with_all_its_answers():
    scores = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([2.0, np.nan, 1, 5])}
    found = verdicts_of_scores(scores, LENGTHS, samples_per_prompt=2)
    assert found.rows.tolist() == [False, False, True, True]
    assert found.preference("b", "a").tolist() == [0.0, 1.0]
    assert found.scores["a"].tolist() == [3.0, 4.0] and found.lengths["b"].tolist() == [8.0, 4.0]
    assert audits({"j": found})["j"].num_unscored == 4
    nothing = verdicts_of_scores({"a": np.full(4, np.nan), "b": np.zeros(4)}, LENGTHS, 1)
    assert nothing.preferences == {} and audits({"j": nothing})["j"].ties is None


def test_an_audit_by_hand():
    scores = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([2.0, 3, 4, 4])}
    others = {"a": np.array([0.0, 0, 1, 0]), "b": np.array([1.0, 0, 0, 1])}
    found = audits({"one": verdicts_of_scores(scores, LENGTHS, 1), "two": verdicts_of_scores(others, LENGTHS, 1)})[
        "one"
    ]
    assert (found.num_pairs, found.ties) == (4, 1 / 4)
    assert found.prefers_longer == 2 / 3  # b is longer, shorter, longer; it wins all three
    assert found.agreement == {"two": 1 / 2}  # decided by both: the first pair alike, the third not
    lengths = np.concatenate([LENGTHS["a"], LENGTHS["b"]])
    assert found.length_correlation == pytest.approx(np.corrcoef(np.concatenate(list(scores.values())), lengths)[0, 1])
    assert found.flipped is None and found.first_place is None


def test_a_judge_of_pairs_is_audited_by_its_two_orders():
    asked = Compared(
        preferences=np.array([1.0, 0.5, 0.5, 0.5]),
        ours_first=np.array([1.0, 1.0, 0.5, np.nan]),
        theirs_first=np.array([1.0, 0.0, 0.0, np.nan]),
        num_unreadable=2,
    )
    found = audits({"panel": verdicts_of_pairs({("b", "a"): asked}, LENGTHS)})["panel"]
    assert found.flipped == 2 / 3
    # decided answers: ours first 1, 1; theirs first 1 (second place), 0, 0 (first place): 4 of 5 prefer the first
    assert found.first_place == 4 / 5
    assert (found.num_unreadable, found.length_correlation, found.prefers_longer) == (2, None, 1.0)


def test_judges_agree_on_the_prompts_that_both_judged():
    one = {"a": np.array([1.0, 1, 1, np.nan]), "b": np.array([2.0, 2, 0, 0])}  # judges 1, 2, 3: b, b, a
    other = {"a": np.array([np.nan, 1, 1, 1]), "b": np.array([0.0, 2, 2, 0])}  # judges 2, 3, 4: b, b, a
    found = audits({"one": verdicts_of_scores(one, LENGTHS, 1), "other": verdicts_of_scores(other, LENGTHS, 1)})
    assert found["one"].agreement == {"other": 1 / 2} and found["other"].agreement == {"one": 1 / 2}
