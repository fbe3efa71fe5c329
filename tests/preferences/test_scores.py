"""Tests of rlhf.preferences.scores."""

import pytest

from rlhf.config import ScoreConfig
from rlhf.config.reading.loader import validate
from rlhf.errors import ConfigError, DataError, RewardError
from rlhf.preferences.scores import add_scores

WORDS = {"kind": "length", "unit": "words", "at_most": 0}
"""Minus the words of an answer."""


@pytest.fixture
def score(workshop, tmp_path, on_disk):
    """A function that scores rows; it returns the new rows."""

    def scored(rows, judge=WORDS, **changes):
        on_disk.write_rows(tmp_path / "rows.jsonl", rows)
        given = {"judge": judge, "output": str(tmp_path / "scored.jsonl"), "tokenizer": str(workshop / "policy")}
        given |= {"data": {"path": str(tmp_path / "rows.jsonl")}}
        return on_disk.rows(add_scores(validate(ScoreConfig, given | changes, "here")))

    return scored


def test_rows_get_one_more_column_and_lose_nothing(score):
    rows = [
        {"z": 1, "prompt": "p", "completion": "a b", "nested": {"x": [None, 0.1]}},
        {"prompt": "p", "completion": "", "other": "half \ud800"},
        {"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a b c"}]},
    ]
    for some, expected in ((rows[:2], [-2.0, 0.0]), (rows[2:3], [-1.0]), (rows[3:], [-3.0])):
        found = score(some)
        assert found == [{**row, "score": number} for row, number in zip(some, expected, strict=True)]
        assert [list(row) for row in found] == [[*row, "score"] for row in some]


def test_what_generate_writes_is_scored_and_an_answer_that_did_not_end_has_no_eos(score):
    tokens = {"kind": "length", "unit": "tokens", "at_most": 0}
    rows = [{"prompt": "The", "response": " film", "ended": ended, "tokens": 9} for ended in (True, False)]
    ended, cut = score(rows, tokens)
    assert ended["score"] == cut["score"] - 1 and ended["response"] == " film"


def test_a_reward_model_scores_with_its_own_tokenizer_as_in_ppo(score, workshop):
    """The same ids in one forward pass of the classifier."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = str(workshop / "reward_model")
    (row,) = score([{"prompt": "The film", "completion": " was good."}], path, tokenizer=None, precision="float32")
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = [*tokenizer("The film")["input_ids"], *tokenizer(" was good.", add_special_tokens=False)["input_ids"]]
    ids.append(tokenizer.eos_token_id)
    model = AutoModelForSequenceClassification.from_pretrained(path)
    model.config.pad_token_id = None
    assert row["score"] == pytest.approx(model(torch.tensor([ids])).logits.item(), abs=1e-5)


def test_the_columns_of_a_row_reach_a_function_in_calls_of_a_size_and_none_becomes_null(score, tmp_path):
    code = "def score(prompts, completions, bonus, **columns):\n    assert len(prompts) <= 2 and not columns, columns\n"
    code += "    return [None if each is None else float(each) for each in bonus]\n"
    (tmp_path / "judge.py").write_text(code)
    rows = [{"prompt": "p", "completion": "a", "bonus": each} for each in (1, None, 3)]
    found = score(rows, {"kind": "function", "path": f"{tmp_path / 'judge.py'}:score"}, batch_rows=2)
    assert [row["score"] for row in found] == [1.0, None, 3.0]


def test_what_is_the_answer_itself_is_no_column_for_a_function(score, tmp_path):
    code = (
        "def score(prompts, completions, **columns):\n    return [float(sorted(columns) == ['mine'])] * len(prompts)\n"
    )
    (tmp_path / "judge.py").write_text(code)
    row = {"prompt": "p", "response": " a", "ended": False, "tokens": 1, "mine": 3}
    (found,) = score([row], {"kind": "function", "path": f"{tmp_path / 'judge.py'}:score"})
    assert found["score"] == 1.0


def test_a_column_map_names_the_columns_and_the_output_keeps_the_names_of_the_source(score, tmp_path):
    source = {"path": str(tmp_path / "rows.jsonl"), "column_map": {"prompt": "q", "completion": "a"}}
    (row,) = score([{"q": "p", "a": "x y"}], data=source, column="words")
    assert row == {"q": "p", "a": "x y", "words": -2.0}


@pytest.mark.slow
def test_the_gold_judge_scores_without_a_tokenizer(score, root, tmp_path, on_disk):
    pytest.importorskip("sklearn")
    rows = on_disk.rows(root / "data/labelled_texts.jsonl")
    half = len(rows) // 2
    paths = {"train": rows[:half], "heldout": rows[half:]}
    files = {name: str(on_disk.write_rows(tmp_path / f"{name}.jsonl", some)) for name, some in paths.items()}
    judge = {"kind": "gold", **files}
    good, bad = (next(row["text"] for row in rows[half:] if row["label"] == label) for label in (1, 0))
    found = score([{"prompt": text[:9], "completion": text[9:]} for text in (good, bad)], judge, tokenizer=None)
    assert found[0]["score"] > 0 > found[1]["score"]


def test_a_column_that_is_there_already_and_the_input_itself_are_never_overwritten(score, tmp_path):
    row = {"prompt": "p", "completion": "a"}
    with pytest.raises(DataError, match="rows.jsonl:1: has a column prompt already - set column to another name"):
        score([row], column="prompt")
    with pytest.raises(ConfigError, match="is the file that is read"):
        score([row], output=str(tmp_path / "rows.jsonl"))
    assert (tmp_path / "rows.jsonl").read_text() == '{"prompt": "p", "completion": "a"}\n'


def test_a_failing_judge_leaves_no_file(score, tmp_path):
    (tmp_path / "judge.py").write_text("def score(prompts, completions, **columns):\n    raise KeyError('x')\n")
    with pytest.raises(RewardError, match="judge.py:score' raised KeyError"):
        score([{"prompt": "p", "completion": "a"}], {"kind": "function", "path": f"{tmp_path / 'judge.py'}:score"})
    assert not (tmp_path / "scored.jsonl").exists()


def test_a_row_without_an_answer_is_refused_by_its_line(score):
    with pytest.raises(DataError, match=r"rows.jsonl:1: needed columns \{prompt, completion\}, found \['prompt'\]"):
        score([{"prompt": "p"}])
