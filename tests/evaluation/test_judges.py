"""Tests of rlhf.evaluation.judges."""

import json
import random

import pytest
import torch

from rlhf.config.evaluate import GoldSection
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.judges import reward_scores, train_gold_judge
from rlhf.evaluation.respond import Response, load_policy

WORDS = {1: ["warm", "rich", "clever", "bold"], 0: ["stale", "flat", "dull", "thin"]}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def reviews(subject, num):
    rng = random.Random(subject)
    labels = [index % 2 for index in range(num)]
    return [
        {"text": f"the {subject} number {index} was {' and '.join(rng.sample(WORDS[label], 2))}", "label": label}
        for index, label in enumerate(labels)
    ]


def test_the_judge_is_fitted_and_its_accuracy_on_held_out_texts_is_printed(tmp_path, capsys):
    train, heldout = (
        written(tmp_path / "a.jsonl", reviews("film", 60)),
        written(tmp_path / "b.jsonl", reviews("cast", 20)),
    )
    judge = train_gold_judge(GoldSection(train=train, heldout=heldout, fluency_penalty=0.5))
    assert judge.rules.fluency_penalty == 0.5
    assert judge.verdict(["the music was warm and bold", "the music was flat and dull"]).tolist() == [True, False]
    assert "agrees with the author on 100.0% of 20 held-out human texts" in capsys.readouterr().out


def test_a_limit_takes_rows_of_both_files_from_the_front(tmp_path, capsys):
    train, heldout = (
        written(tmp_path / "a.jsonl", reviews("film", 60)),
        written(tmp_path / "b.jsonl", reviews("cast", 20)),
    )
    train_gold_judge(GoldSection(train=train, heldout=heldout, limit=10))
    assert "of 10 held-out human texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    "row", [{"text": "a film"}, {"label": 1}, {"text": "a", "label": 2}, {"text": None, "label": 1}]
)
def test_a_row_without_text_or_label_is_named(tmp_path, row):
    path = written(tmp_path / "a.jsonl", [*reviews("film", 2), row])
    with pytest.raises(DataError, match=r"a\.jsonl:3: a row of the gold judge needs text \(a string\) and label"):
        train_gold_judge(GoldSection(train=path, heldout=path))


def test_labels_of_one_kind_are_refused(tmp_path):
    good = written(tmp_path / "a.jsonl", [{"text": f"film {index}", "label": 1} for index in range(4)])
    heldout = written(tmp_path / "b.jsonl", reviews("cast", 4))
    with pytest.raises(DataError, match="labels must be 0 and 1, both present"):
        train_gold_judge(GoldSection(train=good, heldout=heldout))


def test_the_reward_model_scores_each_response_apart(policy_directory, reward_model_directory):
    policy = load_policy(str(policy_directory(0)), torch.float32, torch.device("cpu"))
    rows = [Row({"prompt": text}, "p.jsonl:1") for text in ("To me", "At heart the villain")]
    prompts = prepare_prompts(rows, policy.tokenizer, max_length=32).items
    responses = [Response("x", (9, 11, 2), True), Response("y", (30,), False)]
    path = str(reward_model_directory)
    together = reward_scores(path, policy, prompts, responses, torch.float32)
    apart = [
        reward_scores(path, policy, [prompt], [response], torch.float32)[0]
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    assert together.tolist() == pytest.approx(apart, abs=1e-5)
    assert together[0] != together[1]


def test_a_language_model_is_no_reward_model(policy_directory):
    policy = load_policy(str(policy_directory(0)), torch.float32, torch.device("cpu"))
    with pytest.raises(ConfigError, match="a reward model needs 1 label"):
        reward_scores(str(policy_directory(0)), policy, [], [], torch.float32)
