"""Tests of rlhf.preferences.labels."""

import math

import numpy as np
import pytest

from rlhf.config import LabelConfig
from rlhf.config.reading.loader import validate
from rlhf.data.reading.rows import read_rows
from rlhf.data.tokenization import prepare_pairs
from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.judges.pairwise import ChatJudge
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.preferences.labels import label_pairs, noisy_preferences

PAIRS = [
    {"prompt": "The film", "first": " was good.", "second": " was.", "ended": [True, False], "tokens": [4, 2], "id": 7},
    {"prompt": "The film", "first": " was.", "second": " was good and long.", "ended": [False, True], "margin": 3.0},
]
SHORT = {"kind": "length", "unit": "words", "at_most": 0}
"""Minus the words of an answer."""


@pytest.fixture
def label(workshop, tmp_path, on_disk):
    """A function that labels rows of pairs; it returns the preferences."""

    def labelled(rows, judge=SHORT, **changes):
        on_disk.write_rows(tmp_path / "pairs.jsonl", rows)
        given = {"judge": judge, "output": str(tmp_path / "out" / "preferences.jsonl")}
        given |= {"pairs": {"path": str(tmp_path / "pairs.jsonl")}, "tokenizer": str(workshop / "policy")}
        return on_disk.rows(label_pairs(validate(LabelConfig, given | changes, "here")))

    return labelled


@pytest.mark.slow
def test_the_higher_score_wins_and_its_columns_go_with_it(label, capsys):
    assert label(PAIRS) == [
        {"prompt": "The film", "chosen": " was.", "rejected": " was good.", "chosen_score": -1.0,
         "rejected_score": -2.0, "id": 7},
        {"prompt": "The film", "chosen": " was.", "rejected": " was good and long.", "chosen_score": -1.0,
         "rejected_score": -4.0},
    ]  # fmt: skip
    assert "preferences: read 2, kept 2\n" in capsys.readouterr().out


def test_a_reward_model_reads_the_preferences_as_they_are_and_takes_a_margin_from_the_scores(label, workshop, tmp_path):
    label(PAIRS)
    rows = read_rows(tmp_path / "out/preferences.jsonl", margin_from=("chosen_score", "rejected_score"))
    pairs = prepare_pairs(rows, load_tokenizer(str(workshop / "policy")), max_length=64).items
    assert [pair.margin for pair in pairs] == [1.0, 3.0]
    plain = prepare_pairs(
        read_rows(tmp_path / "out/preferences.jsonl"), load_tokenizer(str(workshop / "policy")), max_length=64
    )
    assert [pair.margin for pair in plain.items] == [0.0, 0.0] and plain.counts["kept"] == 2


def test_ties_equal_blank_and_unscored_pairs_are_dropped_and_counted(label, tmp_path, capsys):
    code = "def score(prompts, completions, **columns):\n"
    code += "    return [None if 'no' in text else float(len(text)) for text in completions]\n"
    (tmp_path / "judge.py").write_text(code)
    texts = [("a", "b"), ("a", "a"), ("a", " "), ("a", "no"), ("a", "bc")]
    rows = [{"prompt": "p", "first": first, "second": second} for first, second in texts]
    kept = label(rows, {"kind": "function", "path": f"{tmp_path / 'judge.py'}:score"})
    assert [(row["chosen"], row["rejected"]) for row in kept] == [("bc", "a")]
    said = capsys.readouterr().out
    assert "read 5, kept 1, dropped_equal 1, dropped_empty 1, ties 1, unscored 1" in said


def test_nothing_left_is_refused_with_the_fix(label):
    with pytest.raises(DataError, match="0 preferences left of 1 pairs, ties 1 - another judge may tell them apart"):
        label([{"prompt": "p", "first": "a", "second": "b"}])


def test_noise_follows_the_bradley_terry_model():
    # sigmoid((2 - 1) / 0.5) = 0.8808
    numbers = np.array([0.0, 0.88, 0.89, 0.999])
    scores = np.array([[2.0, 1.0]] * 4)
    assert noisy_preferences(scores, 0.5, numbers).tolist() == [1, 1, 0, 0]
    assert noisy_preferences(scores[:, ::-1], 0.5, numbers).tolist() == [1, 0, 0, 0]
    rates = noisy_preferences(np.array([[0.0, 1.0]] * 40_000), 2.0, np.random.default_rng(0).random(40_000))
    assert rates.mean() == pytest.approx(1 / (1 + math.exp(0.5)), abs=4 * 0.5 / 200)


def test_no_noise_prefers_the_higher_score_a_tie_stays_one_and_far_scores_do_not_overflow():
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [np.nan, 0.0], [1e9, -1e9]])
    for temperature in (0.0, 1e-9):
        found = noisy_preferences(scores, temperature, np.full(5, 0.5))
        np.testing.assert_array_equal(found, [1, 0, 0.5, np.nan, 1])


def test_noise_turns_some_labels_by_the_seed_and_says_how_many(label, capsys):
    many = [{"prompt": f"p{number}", "first": "a", "second": "a b"} for number in range(40)]
    first, again, other = (label(many, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    turned = sum(row["chosen"] == "a b" for row in first)
    assert 3 < turned < 20  # of 40, sigmoid(-1) = 0.27
    assert all(row["chosen_score"] == (-2.0 if row["chosen"] == "a b" else -1.0) for row in first)
    assert f"kept 40; noise turned {turned} of them" in capsys.readouterr().out
    assert [row["chosen"] for row in label(many)] == ["a"] * 40


def test_an_answer_in_several_pairs_is_scored_once(label, tmp_path):
    code = "seen = []\ndef score(prompts, completions, **columns):\n    seen.extend(completions)\n"
    code += "    return [float(len(set(seen)) == len(seen)) + len(text) for text in completions]\n"
    (tmp_path / "judge.py").write_text(code)
    rows = [{"prompt": "p", "first": "a", "second": "bb"}, {"prompt": "p", "first": "a", "second": "ccc"}]
    kept = label(rows, {"kind": "function", "path": f"{tmp_path / 'judge.py'}:score"})
    assert [row["rejected_score"] for row in kept] == [2.0, 2.0]
    assert [row["chosen_score"] for row in kept] == [3.0, 4.0]


def test_answers_that_a_judge_may_find_different_are_scored_apart(label, tmp_path):
    code = "def score(prompts, completions, bonus, **columns):\n"
    code += "    return [each + len(text) for each, text in zip(bonus, completions)]\n"
    (tmp_path / "judge.py").write_text(code)
    rows = [{"prompt": "p", "first": "a", "second": "bb", "bonus": number} for number in (1.0, 5.0)]
    kept = label(rows, {"kind": "function", "path": f"{tmp_path / 'judge.py'}:score"})
    assert [row["chosen_score"] for row in kept] == [3.0, 7.0]
    tokens = {"kind": "length", "unit": "tokens", "at_most": 0}  # an answer that was cut has no EOS: a token less
    cut = {"prompt": "p", "first": " was", "second": " was good and long.", "ended": [False, True]}
    whole = {**cut, "ended": [True, True]}
    first, second = label([cut, whole], tokens)
    assert first["chosen_score"] == second["chosen_score"] + 1


def test_a_judge_of_pairs_labels_without_scores_and_sees_no_word_that_was_cut(label, monkeypatch):
    asked = []

    def longer(self, question):
        asked.append(question)
        _, first, second = question.split("|")
        return "A" if len(first) > len(second) else "B" if len(second) > len(first) else "tie"

    monkeypatch.setattr(ChatJudge, "_asked", longer)
    judge = {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "m", "question": "{prompt}|{first}|{second}"}
    rows = [
        {"prompt": "p", "first": "a b cut", "second": "two words", "ended": [False, True]},
        {"prompt": "p", "first": "ab", "second": "cd", "ended": [True, True]},
    ]
    assert label(rows, judge, tokenizer=None) == [{"prompt": "p", "chosen": "two words", "rejected": "a b cut"}]
    assert sorted(asked)[:2] == ["p|a b|two words", "p|ab|cd"]


def test_preferences_of_any_kind_are_labelled_anew(label):
    talk = [{"role": "user", "content": "How?"}]
    rows = [
        {"chosen": [*talk, {"role": "assistant", "content": "Very well indeed."}], "chosen_score": 1.0,
         "rejected": [*talk, {"role": "assistant", "content": "Well."}], "margin": 2.0},
    ]  # fmt: skip
    (kept,) = label(rows)
    assert kept["prompt"] == talk and kept["chosen"] == [{"role": "assistant", "content": "Well."}]
    assert kept["rejected"][0]["content"] == "Very well indeed." and "margin" not in kept
    assert (kept["chosen_score"], kept["rejected_score"]) == (-1.0, -3.0)  # and not those of older labels


def test_a_column_map_names_the_answers(label, tmp_path):
    source = {"path": str(tmp_path / "pairs.jsonl"), "column_map": {"prompt": "q", "first": "x", "second": "y"}}
    (kept,) = label([{"q": "p", "x": "a b", "y": "c"}], pairs=source)
    assert (kept["prompt"], kept["chosen"], kept["rejected"]) == ("p", "c", "a b")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "first": "a"}, r"pairs.jsonl:1: needed columns \{prompt, first, second\} \(or prompt, chosen"),
        ({"prompt": "p", "first": "a", "second": 3}, r":1: second must be text or a list of messages, found int"),
        ({"prompt": " ", "first": "a", "second": "b"}, r":1: empty "),
        ({"prompt": "p", "first": "a", "second": "b", "ended": True}, r":1: ended must be \[true or false"),
        ({"prompt": "p", "first": "a", "second": "b", "ended": [1, 0]}, r":1: ended must be true or false"),
        (
            {"prompt": "p", "first": [{"role": "user", "content": "a"}], "second": "b"},
            r":1: first must be text or one message of the assistant .* found 1 messages of user",
        ),
    ],
)
def test_a_row_that_is_no_pair_is_refused_by_its_line(label, row, message):
    with pytest.raises(DataError, match=message):
        label([row])


def test_the_pairs_are_never_overwritten_and_a_judge_of_text_needs_the_writers_tokenizer(label, tmp_path):
    with pytest.raises(ConfigError, match="is the file that is read"):
        label(PAIRS, output=str(tmp_path / "pairs.jsonl"))
    with pytest.raises(ConfigError, match="a judge of kind length has none .* tokenizer=runs/mine/ppo/policy"):
        label(PAIRS, tokenizer=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 1.0}, "temperature: a judge of kind openai gives no scores .* set it to 0"),
        ({"judge": {"pairs": "first"}}, "judge.pairs: every pair of the file is judged - leave it out"),
        ({"judge": {**SHORT, "gate": {"reward": "x"}}}, "judge: gate means nothing for a judge"),
    ],
)
def test_settings_without_a_meaning_are_refused(label, changes, message):
    judge = {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "m", **changes.pop("judge", {})}
    if judge["kind"] == "length":
        judge = {key: judge[key] for key in (*SHORT, "gate")}
    with pytest.raises(ConfigError, match=message):
        label(PAIRS, judge, **changes)
