"""A model has an embedding for every id, with room for an added pad token."""

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.models.pretrained.depth import freeze_all_but_top
from rlhf.models.pretrained.vocabulary import fit_vocabulary, num_embeddings


def test_spare_rows_stay(tiny_model, tiny_tokenizer):
    model = tiny_model("llama")
    fit_vocabulary(model, tiny_tokenizer, "here")
    assert num_embeddings(model) == 128


def test_more_ids_than_embeddings_are_refused_with_both_sizes(tiny_model, tiny_tokenizer):
    model = tiny_model("llama", vocab_size=90)
    with pytest.raises(ConfigError, match=r"here: the tokenizer has 100 ids, the model 90 embeddings"):
        fit_vocabulary(model, tiny_tokenizer, "here")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_an_added_pad_token_gets_the_mean_row_and_changes_no_other_logit(tiny_model, tiny_tokenizer, family, tied):
    model = tiny_model(family, vocab_size=100, tie_word_embeddings=tied)
    ids = torch.tensor([[5, 6, 7]])
    before = model(ids).logits
    freeze_all_but_top(model, 1)
    tiny_tokenizer.add_special_tokens({"pad_token": "<new>"})
    fit_vocabulary(model, tiny_tokenizer, "here")
    after = model(ids).logits
    assert after.shape[-1] == 101 == model.config.vocab_size
    torch.testing.assert_close(after[..., :100], before)
    torch.testing.assert_close(after[..., 100], before.mean(-1), rtol=1e-4, atol=1e-4)
    assert not model.get_input_embeddings().weight.requires_grad
    assert not model.get_output_embeddings().weight.requires_grad
