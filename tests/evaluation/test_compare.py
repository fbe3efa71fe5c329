import json
from dataclasses import fields, replace

import numpy as np
import pytest

from rlhf.evaluation.compare import _ROWS, PolicyGenerations, PolicySummary, side_by_side, summarise
from rlhf.evaluation.gold import Judgement

PROMPTS = ["one", "two", "three", "four"]


def judgement(scores):
    scores = np.array(scores, dtype=float)
    flags = np.array([True, False, False, False])
    return Judgement(
        logits=scores + flags,
        perplexity=np.array([100.0, 200.0, 300.0, 1000.0]),
        repeated_bigrams=np.zeros(4),
        is_disfluent=flags,
        is_repetitive=~flags,
        scores=scores,
    )


def generations(gold_scores, **changes):
    record = PolicyGenerations(
        prompts=PROMPTS,
        texts=["a b a b", "a b", "c d", "e f g"],
        kl=np.array([1.0, 2.0, 3.0, 6.0]),
        lengths=np.array([4, 2, 2, 4]),
        ended=np.array([True, True, False, True]),
        reward_scores=np.array([0.0, 1.0, 2.0, 3.0]),
        gold=judgement(gold_scores),
        embedding=np.array([-1.0, 0.0, 1.0, 2.0]),
    )
    return replace(record, **changes)


def test_the_numbers_of_a_policy_by_hand():
    first = generations([-0.25, 0.0, 1.0, 1.0])
    second = generations(
        [-0.5, 0.0, 2.0, 3.0], reward_scores=np.array([1.0, 1.0, 1.0, 4.0]), embedding=np.array([0.0, 1.0, 1.0, 1.0])
    )
    summary = summarise({"sft": first, "ppo": second}).policies["ppo"]
    assert summary.gold.mean == 4.5 / 4
    assert summary.gold_positive == 3 / 4  # logits are 0.5, 0, 2, 3: a penalty does not count here
    assert summary.gold_win_rate.mean == (0 + 0.5 + 1 + 1) / 4
    assert summary.gold_gain.mean == (-0.25 + 0 + 1 + 2) / 4
    assert summary.reward.mean == 7.0 / 4
    assert summary.reward_win_rate.mean == (1 + 0.5 + 0 + 1) / 4
    assert summary.embedding.mean == 3.0 / 4
    assert summary.embedding_positive == 3 / 4
    assert summary.embedding_win_rate.mean == (1 + 1 + 0.5 + 0) / 4
    assert summary.kl.mean == 12.0 / 4
    assert summary.kl_per_token == 12.0 / 12
    assert (summary.perplexity_median, summary.perplexity_mean) == (250.0, 400.0)
    assert (summary.disfluent, summary.repetitive) == (1 / 4, 3 / 4)
    assert summary.repeated_bigrams == pytest.approx((1 / 3) / 4)
    assert summary.distinct_2 == 5 / 7  # ab ba ab | ab | cd | ef fg
    assert summary.length.mean == 12 / 4
    assert summary.ended == 3 / 4


def test_the_first_policy_is_not_set_against_itself():
    first = summarise({"sft": generations([0, 1, 2, 3])}).policies["sft"]
    assert (first.gold_win_rate, first.reward_win_rate, first.gold_gain) == (None, None, None)
    assert first.embedding_win_rate is None and first.embedding.mean == 0.5


def test_the_numbers_of_a_policy_do_not_depend_on_the_others():
    sft, ppo, other = (generations(scores) for scores in ([0, 1, 2, 3], [1, 2, 0, 5], [9, 9, 9, 9]))
    alone = summarise({"sft": sft, "ppo": ppo}, seed=3).policies["ppo"]
    assert summarise({"sft": sft, "other": other, "ppo": ppo}, seed=3).policies["ppo"] == alone


def test_the_json_text_holds_every_number_and_loads_back():
    comparison = summarise({"sft": generations([0, 1, 2, 3]), "ppo": generations([1, 2, 3, 4])})
    record = json.loads(comparison.to_json())
    assert record["num_prompts"] == 4
    assert list(record["policies"]) == ["sft", "ppo"]
    assert record["policies"]["ppo"]["gold_win_rate"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert set(record["policies"]["ppo"]) == {field.name for field in fields(PolicySummary)}


def test_every_number_has_its_row_in_the_tables():
    assert set(_ROWS) == {field.name for field in fields(PolicySummary)}
    comparison = summarise({"sft": generations([0, 1, 2, 3]), "ppo": generations([1, 2, 3, 4])})
    for table in (comparison.to_table(), comparison.to_markdown()):
        assert len(table.splitlines()) == 2 + len(_ROWS)
        assert "win rate against sft, gold judge" in table
        assert "1.000 [1.000, 1.000]" in table


def test_judges_that_are_absent_have_no_rows():
    plain = generations([0, 1, 2, 3], gold=None, reward_scores=None, embedding=None)
    comparison = summarise({"sft": plain, "ppo": plain})
    assert comparison.policies["ppo"].gold is None
    table = comparison.to_table()
    assert "gold" not in table
    assert "reward" not in table
    assert "embedding" not in table
    assert "perplexity" not in table
    assert "KL to the reference, nats per sequence" in table


def test_texts_stand_side_by_side_and_cannot_break_the_table():
    sft = generations([0, 1, 2, 3])
    ppo = generations([0, 1, 2, 3], texts=["x | y\nz", "b", "c", "d"])
    table = side_by_side({"sft": sft, "ppo": ppo}, 2).splitlines()
    assert table[0] == "| prompt | sft | ppo |"
    assert table[2:] == ["| one | a b a b | x \\| y z |", "| two | a b | b |"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ["one", "two", "three", "five"]}, "ppo and sft answered different prompts"),
        ({"gold": None}, "ppo and sft were not scored by the same judges"),
        ({"reward_scores": None}, "ppo and sft were not scored by the same judges"),
        ({"embedding": None}, "ppo and sft were not scored by the same judges"),
    ],
)
def test_policies_that_cannot_be_compared_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        summarise({"sft": generations([0, 1, 2, 3]), "ppo": generations([0, 1, 2, 3], **changes)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl": np.zeros(3)}, r"kl must hold one entry per prompt \(4\), found 3"),
        ({"texts": ["a"]}, r"texts must hold one entry per prompt \(4\), found 1"),
        ({"reward_scores": np.zeros(5)}, r"reward_scores must hold one entry per prompt \(4\), found 5"),
        ({"embedding": np.zeros(5)}, r"embedding must hold one entry per prompt \(4\), found 5"),
        ({"prompts": []}, "at least one prompt"),
    ],
)
def test_generations_that_do_not_fit_their_prompts_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        generations([0, 1, 2, 3], **changes)


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one policy"):
        summarise({})
