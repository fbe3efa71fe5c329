"""Tests of rlhf.evaluation.judges.human_labels."""

import json
import random
import shutil

import pytest
import torch

from rlhf.config.evaluate import EmbeddingsSection, GoldSection
from rlhf.errors import DataError
from rlhf.evaluation.judges.embeddings import Encoder
from rlhf.evaluation.judges.human_labels import train_embedding_judge, train_gold_judge


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "home"))


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


@pytest.mark.slow
def test_the_judge_is_fitted_and_its_accuracy_on_held_out_texts_is_printed(tmp_path, capsys):
    train, heldout = (
        written(tmp_path / "a.jsonl", reviews("film", 60)),
        written(tmp_path / "b.jsonl", reviews("cast", 20)),
    )
    judge = train_gold_judge(GoldSection(train=train, heldout=heldout, fluency_penalty=0.5))
    assert judge.rules.fluency_penalty == 0.5
    assert judge.verdict(["the music was warm and bold", "the music was flat and dull"]).tolist() == [True, False]
    assert "agrees with the author on 100.0% of 20 held-out human texts" in capsys.readouterr().out


@pytest.mark.slow
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


def fitted_on_embeddings(tmp_path, encoder, num=60, **changes):
    train, heldout = (
        written(tmp_path / "a.jsonl", reviews("film", num)),
        written(tmp_path / "b.jsonl", reviews("cast", 20)),
    )
    section = GoldSection(train=train, heldout=heldout, embeddings={"model": str(encoder), **changes})
    return train_embedding_judge(section, section.embeddings, torch.device("cpu"), 256)


def test_the_judge_of_embeddings_is_fitted_and_its_accuracy_printed(tmp_path, encoder_directory, capsys):
    judge = fitted_on_embeddings(tmp_path, encoder_directory)
    assert (judge.score(["the plot was warm and bold", "the plot was flat and dull"]) > 0).tolist() == [True, False]
    said = capsys.readouterr().out
    assert "reads 80 human texts, once for all comparisons" in said
    assert f"agrees with the author on {judge.fitted.accuracy:.1%} of 20 held-out human texts" in said


def test_the_judge_of_embeddings_takes_as_many_rows_as_its_limits_say(tmp_path, encoder_directory, capsys):
    fitted_on_embeddings(tmp_path, encoder_directory, train_limit=30, heldout_limit=8)
    assert "reads 38 human texts" in capsys.readouterr().out


def test_a_second_comparison_embeds_no_human_text_again(tmp_path, encoder_directory, monkeypatch, capsys):
    first = fitted_on_embeddings(tmp_path, encoder_directory)
    capsys.readouterr()

    def refuse(*given):
        raise AssertionError("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "embed", refuse)
        assert fitted_on_embeddings(tmp_path, encoder_directory).fitted == first.fitted
    said = capsys.readouterr().out
    assert "agrees with the author" in said and "reads" not in said


@pytest.mark.parametrize("change", ["rows", "encoder", "limit"])
def test_what_was_kept_is_not_read_for_another_judge(tmp_path, encoder_directory, change, capsys):
    fitted_on_embeddings(tmp_path, encoder_directory)
    capsys.readouterr()
    encoder, changes = encoder_directory, {}
    if change == "rows":
        changes["num"] = 58
    elif change == "limit":
        changes["train_limit"] = 50
    else:
        encoder = shutil.copytree(encoder_directory, tmp_path / "other")
        (encoder / "config.json").write_text((encoder / "config.json").read_text() + " ")
    fitted_on_embeddings(tmp_path, encoder, **changes)
    assert "human texts, once for all comparisons" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_costs_a_line_and_no_comparison(
    tmp_path, encoder_directory, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "file"))
    assert fitted_on_embeddings(tmp_path, encoder_directory).fitted.num_heldout == 20
    assert "embedding judge: not kept for the next comparison: " in capsys.readouterr().out


def test_the_name_of_an_encoder_is_short_for_a_section():
    section = GoldSection(train="a", heldout="b", embeddings="fetch:minilm-l6-v2")
    assert section.embeddings == EmbeddingsSection(model="fetch:minilm-l6-v2")
    assert section.inputs == ["a", "b", "fetch:minilm-l6-v2"]
    assert GoldSection(train="a", heldout="b").inputs == ["a", "b"]


def test_embeddings_of_labels_of_one_kind_are_refused(tmp_path, encoder_directory):
    good = written(tmp_path / "a.jsonl", [{"text": f"film {index}", "label": 1} for index in range(4)])
    heldout = written(tmp_path / "b.jsonl", reviews("cast", 4))
    section = GoldSection(train=good, heldout=heldout, embeddings=str(encoder_directory))
    with pytest.raises(DataError, match="labels must be 0 and 1, both present"):
        train_embedding_judge(section, section.embeddings, torch.device("cpu"), 256)
