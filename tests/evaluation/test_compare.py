import json
from dataclasses import fields, replace

import numpy as np
import pytest

from rlhf.evaluation.compare import _FIRST, _ROWS, HUMAN, PolicySummary, side_by_side, summarise
from rlhf.evaluation.judges.gold import Judgement
from rlhf.evaluation.readers import PolicyGenerations

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
        fluency=np.array([10.0, 20.0, np.nan, 60.0]),
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
    policies = {"sft": generations([0, 1, 2, 3]), "ppo": generations([1, 2, 3, 4])}
    comparison = summarise(policies, human=generations([1, 1, 1, 1], **PEOPLE))
    for table in (comparison.to_table(), comparison.to_markdown()):
        assert all(title.format(first="sft") in table for title in _ROWS.values())
        assert "win rate against sft, gold judge" in table
        assert "1.000 [1.000, 1.000]" in table


PEOPLE = {"kl": None, "reward_scores": None, "fluency": np.array([5.0, 8.0, 8.0, 11.0])}


def test_human_text_has_the_numbers_that_do_not_need_a_policy():
    people = generations([1, 1, 1, 1], **PEOPLE)
    comparison = summarise({"sft": generations([0, 1, 2, 3])}, human=people)
    human, sft = comparison.human, comparison.policies["sft"]
    assert (human.kl, human.kl_per_token, human.ended, human.reward, human.gold_win_rate) == (None,) * 5
    assert (human.gold.mean, human.embedding.mean, human.length.mean) == (1.0, 0.5, 3.0)
    assert (human.repeated_bigrams, human.distinct_2) == (sft.repeated_bigrams, sft.distinct_2)
    assert (human.fluency_median, human.fluency_ratio) == (8.0, None)
    assert (sft.fluency_median, sft.fluency_ratio) == (20.0, 2.5)  # of the three that are not empty
    assert comparison.to_table().splitlines()[0].split()[-2:] == ["human", "text"]
    assert json.loads(comparison.to_json())["human"]["fluency_median"] == 8.0


def test_the_rows_that_matter_most_come_first():
    policies = {"sft": generations([0, 1, 2, 3]), "ppo": generations([1, 2, 3, 4])}
    comparison = summarise(policies, human=generations([1, 1, 1, 1], **PEOPLE))
    titles = [_ROWS[key].format(first="sft") for key in _FIRST]
    lines = comparison.to_table().splitlines()
    assert [line.split("  ")[0] for line in lines[2:7]] == titles and lines[7] == ""
    first, rest = comparison.to_markdown().split("\n\n")
    assert [line.split(" | ")[0][2:] for line in first.splitlines()[2:]] == titles
    assert rest.startswith("| the rest | sft | ppo | human text |")


def test_judges_that_are_absent_have_no_rows():
    plain = generations([0, 1, 2, 3], gold=None, reward_scores=None, embedding=None, fluency=None)
    comparison = summarise({"sft": plain, "ppo": plain})
    assert comparison.policies["ppo"].gold is None
    table = comparison.to_table()
    assert "gold" not in table
    assert "reward" not in table
    assert "embedding" not in table
    assert "perplexity" not in table
    assert "KL to the reference, nats per sequence" in table


def test_samples_show_what_everybody_wrote_and_cannot_break_terminal_or_table():
    sft = generations([0, 1, 2, 3])
    ppo = generations([0, 1, 2, 3], texts=["x | y\n<b>z", "b\x1b[2J", "c", "d"])
    people = generations([0, 1, 2, 3], texts=["h1", "h2", "h3", "h4"], **PEOPLE)
    samples = side_by_side({"sft": sft, "ppo": ppo}, people, 9, seed=0)
    assert [sample.prompt for sample in samples] == PROMPTS
    comparison = summarise({"sft": sft, "ppo": ppo}, samples=samples)
    table = comparison.samples_markdown().splitlines()
    assert table[0] == "| prompt | sft | ppo | human text |"
    assert table[2:4] == ["| one | a b a b | x \\| y &lt;b&gt;z | h1 |", "| two | a b | b[2J | h2 |"]
    blocks = comparison.samples_text().split("\n\n")
    assert blocks[:2] == [
        "one ...\n  sft: a b a b\n  ppo: x | y <b>z\n  human text: h1",
        "two ...\n  sft: a b\n  ppo: b[2J\n  human text: h2",
    ]
    assert json.loads(comparison.to_json())["samples"][2] == {
        "prompt": "three",
        "texts": {"sft": "c d", "ppo": "c", "human text": "h3"},
    }


def test_samples_are_drawn_by_the_seed_and_not_the_first_ones():
    policies = {"sft": generations([0, 1, 2, 3])}
    drawn = [tuple(sample.prompt for sample in side_by_side(policies, None, 2, seed)) for seed in range(30)]
    assert drawn[0] == tuple(sample.prompt for sample in side_by_side(policies, None, 2, 0))
    assert len(set(drawn)) == 6  # every pair of the four prompts
    assert all(len(set(pair)) == 2 for pair in drawn)


def test_human_texts_of_other_prompts_do_not_stand_beside_the_samples():
    others = generations([0, 1, 2, 3], prompts=["five", *PROMPTS[1:]], **PEOPLE)
    (sample,) = side_by_side({"sft": generations([0, 1, 2, 3])}, others, 1, 0)
    assert HUMAN not in sample.texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ["one", "two", "three", "five"]}, "ppo and sft answered different prompts"),
        ({"gold": None}, "ppo and sft were not scored by the same judges"),
        ({"reward_scores": None}, "ppo and sft were not scored by the same judges"),
        ({"fluency": None}, "ppo and sft were not scored by the same judges"),
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
