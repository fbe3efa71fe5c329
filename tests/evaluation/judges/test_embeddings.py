"""Tests of rlhf.evaluation.judges.embeddings."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from rlhf.errors import ConfigError
from rlhf.evaluation.judges.embeddings import EmbeddingJudge, Encoder, Fitted

CPU = torch.device("cpu")
TEXTS = ["the film was warm", "the cast was flat and thin and dull", "", "the plot was bold and the music was rich"]
WARM, COLD = [f"the film was warm {n}" for n in range(8)], [f"the film was flat {n}" for n in range(8)]
HELDOUT = (["the cast was warm", "the cast was flat"], [1, 0])


@pytest.fixture(scope="module")
def encoder(encoder_directory):
    return Encoder.load(str(encoder_directory), CPU)


@pytest.fixture(scope="module")
def judge(encoder):
    return EmbeddingJudge.train(encoder, 256, ([*WARM, *COLD], [1] * 8 + [0] * 8), HELDOUT)


def test_an_embedding_is_the_mean_state_of_the_text_scaled_to_length_1(encoder, encoder_directory):
    found = encoder.embed(TEXTS, 256)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder_directory), AutoModel.from_pretrained(encoder_directory)
    for text, embedding in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), atol=1e-5)


def test_padding_and_the_cut_into_passes_do_not_change_an_embedding(encoder):
    together = encoder.embed(TEXTS, 10_000)
    for max_tokens in (1, 20):
        np.testing.assert_allclose(encoder.embed(TEXTS, max_tokens), together, atol=1e-6)
    assert encoder.embed([], 256).shape == (0, 32)


def test_a_text_beyond_the_positions_is_cut_on_the_right(encoder):
    long = " ".join(["the film was warm"] * 10)
    np.testing.assert_allclose(encoder.embed([long], 256), encoder.embed([" ".join(long.split()[:14])], 256), atol=1e-6)


@pytest.mark.slow
def test_the_judge_tells_praise_from_blame_in_human_standard_deviations(judge):
    assert (judge.score(HELDOUT[0]) > 0).tolist() == [True, False]
    assert judge.score(HELDOUT[0]).std() == pytest.approx(1.0)
    assert (judge.fitted.accuracy, judge.fitted.num_heldout) == (1.0, 2)


def test_training_twice_gives_the_same_numbers(judge, encoder):
    again = EmbeddingJudge.train(encoder, 256, ([*WARM, *COLD], [1] * 8 + [0] * 8), HELDOUT)
    assert again.fitted == judge.fitted


def test_accuracy_counts_the_held_out_texts_on_which_the_author_agrees():
    train = np.array([[1.0], [0.9], [-1.0], [-0.9]])
    fitted = Fitted.fit(train, [1, 1, 0, 0], np.array([[0.5], [0.6], [-0.5], [-0.4]]), [1, 0, 0, 0])
    assert fitted.accuracy == 0.75


def test_what_was_fitted_is_read_back_in_full_and_a_broken_file_is_none(judge, tmp_path):
    path = tmp_path / "judge.json"
    path.write_text(judge.fitted.to_json())
    assert Fitted.read(path) == judge.fitted
    for broken in (judge.fitted.to_json()[:50], json.dumps({"coef": []}), "[1]"):
        path.write_text(broken)
        assert Fitted.read(path) is None
    assert Fitted.read(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("pieces", "heldout", "message"),
    [
        ((WARM, [1] * 8), HELDOUT, "labels must be 0 and 1, both present"),
        (([*WARM, "the cast was flat"], [1] * 8 + [0]), HELDOUT, "1 of them are also among the pieces"),
        (([*WARM, *COLD], [1] * 8 + [0] * 8), (["the cast"], [1]), "the same logit"),
    ],
)
def test_training_sets_without_meaning_are_refused(encoder, pieces, heldout, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingJudge.train(encoder, 256, pieces, heldout)


def test_a_regression_that_did_not_converge_is_refused(monkeypatch):
    monkeypatch.setattr("rlhf.evaluation.judges.embeddings.MAX_ITERATIONS", 1)
    train = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.warns(match="failed to converge"), pytest.raises(ValueError, match="did not converge in 1 iterations"):
        Fitted.fit(train, [0, 1] * 20, train, [0, 1] * 20)


def test_a_place_without_an_encoder_and_a_language_model_are_refused(tmp_path: Path, policy_directory):
    with pytest.raises(ConfigError, match="there is no such directory"):
        Encoder.load(str(tmp_path / "none"), CPU)
    with pytest.raises(ConfigError, match="this is no sentence encoder"):
        Encoder.load(str(policy_directory(0)), CPU)
