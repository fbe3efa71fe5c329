import json
from dataclasses import fields, replace

import numpy as np
import pytest

from rlhf.evaluation.compare import side_by_side, summarise
from rlhf.evaluation.judges.gold import Judgement
from rlhf.evaluation.judges.pairwise import Compared
from rlhf.evaluation.readers import PolicyGenerations
from rlhf.evaluation.rows import HUMAN, OF_JUDGES, OF_TEXTS
from rlhf.evaluation.summary import Judged, PolicySummary

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


def generations(gold_scores, *, reward=(0.0, 1.0, 2.0, 3.0), embedding=(-1.0, 0.0, 1.0, 2.0), **changes):
    known = {"gold": gold_scores, "embedding": embedding, "reward": reward}
    record = PolicyGenerations(
        prompts=PROMPTS,
        texts=["a b a b", "a b", "c d", "e f g"],
        requests=PROMPTS,
        answers=["b a b", "b", "d", "f g"],
        kl=np.array([1.0, 2.0, 3.0, 6.0]),
        lengths=np.array([4, 2, 2, 4]),
        ended=np.array([True, True, False, True]),
        scores={judge: np.array(scores, dtype=float) for judge, scores in known.items() if scores is not None},
        gold=None if gold_scores is None else judgement(gold_scores),
        fluency=np.array([10.0, 20.0, np.nan, 60.0]),
        surprise=np.array([4.0, 4.0, 4.0, 12.0]),
        human_perplexity=np.array([7.0, 9.0]),
    )
    return replace(record, **changes)


def test_the_numbers_of_a_policy_by_hand():
    first = generations([-0.25, 0.0, 1.0, 1.0])
    second = generations([-0.5, 0.0, 2.0, 3.0], reward=(1.0, 1.0, 1.0, 4.0), embedding=(0.0, 1.0, 1.0, 1.0))
    summary = summarise({"sft": first, "ppo": second}).policies["ppo"]
    gold, reward, embedding = (summary.judges[judge] for judge in ("gold", "reward", "embedding"))
    assert gold.score.mean == 4.5 / 4
    assert gold.positive == 3 / 4  # logits are 0.5, 0, 2, 3: a penalty does not count here
    assert gold.win_rate.mean == (0 + 0.5 + 1 + 1) / 4
    assert gold.gain.mean == (-0.25 + 0 + 1 + 2) / 4
    assert reward.score.mean == 7.0 / 4 and reward.positive is None
    assert reward.win_rate.mean == (1 + 0.5 + 0 + 1) / 4
    assert embedding.score.mean == 3.0 / 4
    assert embedding.positive == 3 / 4
    assert embedding.win_rate.mean == (1 + 1 + 0.5 + 0) / 4
    assert summary.kl.mean == 12.0 / 4
    assert summary.kl_per_token == 12.0 / 12
    assert summary.entropy == 24.0 / 12
    assert summary.human_perplexity == 8.0
    assert (summary.perplexity_median, summary.perplexity_mean) == (250.0, 400.0)
    assert (summary.disfluent, summary.repetitive) == (1 / 4, 3 / 4)
    assert summary.repeated_bigrams == pytest.approx((1 / 3) / 4)
    assert summary.distinct_2 == 5 / 7  # ab ba ab | ab | cd | ef fg
    assert summary.distinct_1 == 7 / 11
    assert summary.length.mean == 12 / 4
    assert summary.ended == 3 / 4


def test_the_first_policy_is_not_set_against_itself():
    first = summarise({"sft": generations([0, 1, 2, 3])}).policies["sft"]
    assert all((said.win_rate, said.gain, said.length_controlled) == (None,) * 3 for said in first.judges.values())
    assert first.judges["embedding"].score.mean == 0.5


def test_the_numbers_of_a_policy_do_not_depend_on_the_others():
    sft, ppo, other = (generations(scores) for scores in ([0, 1, 2, 3], [1, 2, 0, 5], [9, 9, 9, 9]))
    alone = summarise({"sft": sft, "ppo": ppo}, seed=3).policies["ppo"]
    assert summarise({"sft": sft, "other": other, "ppo": ppo}, seed=3).policies["ppo"] == alone


def test_several_answers_to_a_prompt_count_as_one_prompt():
    def repeated(policy, times):
        columns = {
            name: list(np.repeat(getattr(policy, name), times)) for name in ("prompts", "texts", "requests", "answers")
        }
        columns |= {
            name: np.repeat(getattr(policy, name), times) for name in ("kl", "lengths", "ended", "fluency", "surprise")
        }
        scores = {judge: np.repeat(given, times) for judge, given in policy.scores.items()}
        return replace(policy, **columns, scores=scores, gold=None, samples_per_prompt=times)

    sft, ppo = (generations(scores, embedding=None) for scores in ([0, 1, 2, 3], [1, 2, 0, 5]))
    sft, ppo = replace(sft, gold=None), replace(ppo, gold=None)
    one = summarise({"sft": sft, "ppo": ppo})
    three = summarise({"sft": repeated(sft, 3), "ppo": repeated(ppo, 3)})
    assert (three.num_prompts, three.samples_per_prompt) == (4, 3)
    assert three.win_rates == one.win_rates and three.policies["ppo"].kl == one.policies["ppo"].kl
    assert three.policies["ppo"].judges["reward"].score == one.policies["ppo"].judges["reward"].score
    assert "on 4 prompts, 3 answers each" in three.to_table()


def test_every_policy_is_set_against_every_other_and_ranked():
    policies = {"sft": generations([0, 1, 2, 3]), "mid": generations([1, 2, 3, 2]), "ppo": generations([2, 3, 4, 9])}
    comparison = summarise(policies)
    matrix = comparison.win_rates["gold"]
    assert list(matrix) == ["sft", "mid", "ppo"] and list(matrix["mid"]) == ["sft", "ppo"]
    assert matrix["mid"]["sft"].mean == 3 / 4 and matrix["sft"]["mid"].mean == 1 / 4
    assert matrix["ppo"]["sft"] == comparison.policies["ppo"].judges["gold"].win_rate
    strengths = comparison.rankings["gold"]
    assert strengths["sft"].mean == 0.0 < strengths["mid"].mean < strengths["ppo"].mean
    table = comparison.to_table()
    block = table[table.index("row wins against column, gold judge") :].splitlines()
    assert [line.split("  ")[0] for line in block[2:5]] == ["ppo", "mid", "sft"]  # the strongest first
    assert summarise({"sft": policies["sft"], "ppo": policies["ppo"]}).rankings == {}


def test_a_judge_of_pairs_stands_beside_the_others():
    won = np.array([1.0, 1.0, 0.5, 0.0])
    asked = Compared(preferences=won, ours_first=won, theirs_first=won, num_unreadable=1)
    policies = {"sft": generations([0, 1, 2, 3]), "ppo": generations([1, 2, 3, 4])}
    comparison = summarise(policies, compared={"panel": {("ppo", "sft"): asked}})
    said = comparison.policies["ppo"].judges["panel"]
    assert (said.score, said.gain, said.win_rate.mean) == (None, None, 2.5 / 4)
    assert comparison.audits["panel"].flipped == 0.0 and "panel" in comparison.audits["gold"].agreement
    assert "win rate against sft, panel judge" in comparison.to_table()
    assert "panel judge: 1 of its answers named no winner and count as ties" in comparison.to_table()


def test_a_win_rate_that_length_explains_is_noted():
    prompts = [f"p{number}" for number in range(40)]
    longer = np.tile([1, 1, 1, -1], 10)
    plain = {"prompts": prompts, "texts": prompts, "requests": prompts, "answers": prompts}
    plain |= {"gold": None, "fluency": None, "surprise": None, "human_perplexity": None}
    plain |= {"kl": np.zeros(40), "ended": np.ones(40, dtype=bool)}
    won = np.where(longer > 0, np.arange(40) % 10 > 0, np.arange(40) % 10 == 3).astype(float)
    first = generations(None, **plain, lengths=np.full(40, 10), scores={"reward": np.full(40, 0.5)})
    second = generations(None, **plain, lengths=10 + longer, scores={"reward": won})
    comparison = summarise({"sft": first, "ppo": second})
    said = comparison.policies["ppo"].judges["reward"]
    assert said.length_controlled.mean < said.win_rate.mean - 0.05
    (note,) = comparison.notes
    assert note.startswith(f"ppo against sft, reward model: {said.win_rate.mean:.1%} won, ")
    assert note in comparison.to_table()
    assert comparison.smallest_effect == pytest.approx(2.801585 * 0.5 / 40**0.5, rel=1e-5)
    assert "40 prompts find a win rate that differs by 22.1% from 50%" in comparison.to_markdown()
    # Seen from the other side: at equal length the shorter policy wins more than it did.
    other = summarise({"ppo": second, "sft": first})
    said = other.policies["sft"].judges["reward"]
    assert said.length_controlled.mean > said.win_rate.mean + 0.05 and len(other.notes) == 1


def test_the_json_text_holds_every_number_and_loads_back():
    comparison = summarise({"sft": generations([0, 1, 2, 3]), "ppo": generations([1, 2, 3, 4])})
    record = json.loads(comparison.to_json())
    assert record["num_prompts"] == 4
    assert list(record["policies"]) == ["sft", "ppo"]
    assert record["policies"]["ppo"]["judges"]["gold"]["win_rate"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert set(record["policies"]["ppo"]) == {field.name for field in fields(PolicySummary)}
    assert set(record["policies"]["ppo"]["judges"]["gold"]) == {field.name for field in fields(Judged)}


def test_every_number_has_its_row_in_the_tables():
    assert {*OF_TEXTS, "judges"} == {field.name for field in fields(PolicySummary)}
    assert set(OF_JUDGES) == {field.name for field in fields(Judged)}
    policies = {"sft": generations([0, 1, 2, 3]), "ppo": generations([1, 2, 3, 4], kl_bound=0.3)}
    comparison = summarise(policies, human=generations([1, 1, 1, 1], **PEOPLE))
    for table in (comparison.to_table(), comparison.to_markdown()):
        assert all(title in table for title in OF_TEXTS.values())
        assert all(title.format(first="sft", judge="gold judge") in table for title in OF_JUDGES.values())
        assert "win rate against sft, reward model" in table
        assert "1.000 [1.000, 1.000]" in table


PEOPLE = {"kl": None, "reward": None, "fluency": np.array([5.0, 8.0, 8.0, 11.0]), "surprise": None}
PEOPLE |= {"human_perplexity": None}


def test_human_text_has_the_numbers_that_do_not_need_a_policy():
    people = generations([1, 1, 1, 1], **PEOPLE)
    comparison = summarise({"sft": generations([0, 1, 2, 3])}, human=people)
    human, sft = comparison.human, comparison.policies["sft"]
    assert (human.kl, human.kl_per_token, human.ended, human.entropy, human.human_perplexity) == (None,) * 5
    assert "reward" not in human.judges and human.judges["gold"].win_rate is None
    assert (human.judges["gold"].score.mean, human.judges["embedding"].score.mean, human.length.mean) == (1.0, 0.5, 3.0)
    assert (human.repeated_bigrams, human.distinct_2) == (sft.repeated_bigrams, sft.distinct_2)
    assert (human.fluency_median, human.fluency_ratio) == (8.0, None)
    assert (sft.fluency_median, sft.fluency_ratio) == (20.0, 2.5)  # of the three that are not empty
    assert comparison.to_table().splitlines()[0].split()[-2:] == ["human", "text"]
    assert json.loads(comparison.to_json())["human"]["fluency_median"] == 8.0


def test_the_rows_that_matter_most_come_first():
    policies = {"sft": generations([0, 1, 2, 3]), "ppo": generations([1, 2, 3, 4])}
    comparison = summarise(policies, human=generations([1, 1, 1, 1], **PEOPLE))
    titles = [
        "win rate against sft, gold judge",
        "win rate against sft, embedding judge",
        "KL to the reference, nats per sequence",
        "perplexity over human text's, fluency model",
        "distinct-2",
    ]
    lines = comparison.to_table().splitlines()
    assert [line.split("  ")[0] for line in lines[2:7]] == titles and lines[7] == ""
    first, rest, *_ = comparison.to_markdown().split("\n\n")
    assert [line.split(" | ")[0][2:] for line in first.splitlines()[2:]] == titles
    assert rest.startswith("| the rest | sft | ppo | human text |")


def test_judges_that_are_absent_have_no_rows():
    plain = generations(None, reward=None, embedding=None, fluency=None, human_perplexity=None)
    comparison = summarise({"sft": plain, "ppo": plain})
    assert comparison.policies["ppo"].judges == {} and comparison.smallest_effect is None
    table = comparison.to_table()
    assert not any(word in table for word in ("gold", "reward", "embedding", "perplexity", "audit", "50%"))
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
        ({"scores": {}}, "ppo and sft were not scored by the same judges"),
        ({"fluency": None}, "ppo and sft were not scored by the same judges"),
    ],
)
def test_policies_that_cannot_be_compared_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        summarise({"sft": generations([0, 1, 2, 3]), "ppo": generations([0, 1, 2, 3], **changes)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kl": np.zeros(3)}, r"kl must hold one entry per response \(4\), found 3"),
        ({"texts": ["a"]}, r"texts must hold one entry per response \(4\), found 1"),
        ({"scores": {"reward": np.zeros(5)}}, r"scores.reward must hold one entry per response \(4\), found 5"),
        ({"samples_per_prompt": 3}, "4 responses are not 3 for each prompt"),
        ({"prompts": []}, "at least one prompt"),
    ],
)
def test_generations_that_do_not_fit_their_prompts_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        generations([0, 1, 2, 3], **changes)


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one policy"):
        summarise({})
