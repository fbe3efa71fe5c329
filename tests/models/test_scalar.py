"""The scalar model reads its score at the last real token, and nowhere else."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.models.scalar import ScalarModel

ROWS = ([5, 6, 7, 8], [9], [10, 11])
# float32 through two layers, in another order: some hundred roundings of 2^-24.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def _batch(*, extra: int = 0, content: int = 0):
    width = 4 + extra
    ids = torch.tensor([[*row, *[content] * (width - len(row))] for row in ROWS])
    return ids, torch.arange(width)[None] < torch.tensor([[len(row)] for row in ROWS])


@pytest.fixture(params=["gpt2", "llama", "gemma2"])
def directory(request, tiny_model, tmp_path):
    tiny_model(request.param).save_pretrained(tmp_path)
    return tmp_path


@torch.no_grad()
def test_scores_do_not_depend_on_padding_or_company(directory):
    model = ScalarModel(load_scalar_lm(str(directory), new_head=True))
    scores = model(*_batch())
    assert scores.dtype == torch.float32 and bool(scores.isfinite().all())
    assert len(set(scores.tolist())) == 3
    assert torch.equal(model(*_batch(extra=5)), model(*_batch(extra=5, content=77)))
    torch.testing.assert_close(model(*_batch(extra=5)), scores, **TOLERANCE)
    for row, ids in enumerate(ROWS):
        alone = model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))
        torch.testing.assert_close(alone[0], scores[row], **TOLERANCE)


@torch.no_grad()
def test_scores_are_those_of_the_saved_classifier_minus_its_mean(directory, tmp_path):
    model = ScalarModel(load_scalar_lm(str(directory), new_head=True))
    model.score_mean = 0.25
    model.classifier.save_pretrained(tmp_path / "rm")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    ids, mask = _batch()
    expected = theirs(ids, attention_mask=mask.long()).logits.squeeze(-1) - 0.25
    torch.testing.assert_close(model(ids, mask), expected, **TOLERANCE)
    again = ScalarModel(load_scalar_lm(str(tmp_path / "rm"), new_head=False))
    assert again.score_mean == 0.25
    torch.testing.assert_close(again(ids, mask), model(ids, mask), **TOLERANCE)


def test_an_empty_sequence_is_refused(directory):
    model = ScalarModel(load_scalar_lm(str(directory), new_head=True))
    ids, mask = _batch()
    mask[1] = False
    with pytest.raises(ValueError, match="every sequence needs at least one token"):
        model(ids, mask)
