"""The parts of a model, found in every family."""

import pytest
import torch
from torch import nn

from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import (
    blocks,
    check_logits,
    final_norm,
    hidden_size,
    hidden_states,
    logits,
    switch_off_dropout,
)


def test_every_family_has_its_blocks_norm_and_hidden_size(tiny_model, family):
    model = tiny_model(family)
    assert len(blocks(model)) == 2
    assert final_norm(model) is not None
    assert hidden_size(model) == 32


@torch.no_grad()
def test_logits_of_hidden_states_are_the_models_own(tiny_model, family):
    model, ids = tiny_model(family), torch.tensor([[5, 6, 7]])
    torch.testing.assert_close(logits(model, hidden_states(model, ids)), model(ids).logits)
    check_logits(model, "here")


@torch.no_grad()
def test_the_soft_cap_of_gemma_2_bounds_the_logits(tiny_model):
    model = tiny_model("gemma2", final_logit_softcapping=0.5)
    assert float(logits(model, hidden_states(model, torch.tensor([[5, 6]]))).abs().max()) <= 0.5


def test_a_model_with_another_head_is_refused(tiny_model):
    class Doubled(nn.Linear):
        calls = 0

        def forward(self, states):
            Doubled.calls += 1
            return super().forward(states) * Doubled.calls

    model = tiny_model("llama")
    model.lm_head.__class__ = Doubled
    with pytest.raises(ConfigError, match="LlamaForCausalLM makes its logits in a way that rlhf does not know"):
        check_logits(model, "here")


def test_a_model_without_a_stack_of_blocks_says_so(tiny_model):
    model = tiny_model("llama")
    model.config.num_hidden_layers = 5
    with pytest.raises(ConfigError, match="no stack of 5 blocks"):
        blocks(model)


def test_dropout_is_off_everywhere(tiny_model):
    model = tiny_model("gpt2", resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.3)
    llama = tiny_model("llama", attention_dropout=0.3)
    for each in (model, llama):
        switch_off_dropout(each.train())
        assert not each.training
        with torch.no_grad():
            ids = torch.tensor([[5, 6, 7]])
            assert torch.equal(each(ids).logits, each.train()(ids).logits)
