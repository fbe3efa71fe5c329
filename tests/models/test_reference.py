"""The reference is the policy at its start, bit for bit, and stays it."""

import pytest
import torch

from rlhf.batches import join
from rlhf.models.policy import PolicyWithValueHead
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.models.pretrained.setup import make_trainable
from rlhf.models.reference import Reference
from rlhf.training.sharding.master_weights import MasterWeights

LORA = {"r": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": "all-linear"}
WAYS = {"full": (None, None), "top": (None, 1), "lora": (LORA, None)}


def _policy(tiny_model, way, dtype):
    lora, layers = WAYS[way]
    trainable = make_trainable(tiny_model("llama"), "nowhere", lora=lora, trainable_layers=layers)
    policy = PolicyWithValueHead(trainable.model)
    weights = MasterWeights(policy, dtype, keep_float32=[policy.value_head])
    return trainable, policy, weights


def _sequences():
    ids = torch.arange(10, 22).view(2, 6)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    return join(ids, mask, ids + 20, mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_it_equals_the_policy_bit_for_bit_and_stays_when_the_policy_moves(tiny_model, way, dtype):
    trainable, policy, weights = _policy(tiny_model, way, dtype)
    reference, sequences = Reference(trainable), _sequences()
    start = reference.logprobs(sequences, 6, 0.9)
    output = policy(sequences, 6, 0.9)
    assert torch.equal(output.logprobs, start)
    assert not start.requires_grad
    output.logprobs.sum().backward()
    gradients = [master.grad for name, master in weights.masters.items() if name.startswith("lm.")]
    assert any(gradient is not None and bool(gradient.any()) for gradient in gradients)
    with torch.no_grad():
        for master in weights.masters.values():
            if master.grad is not None:
                master -= 0.5 * master.grad.sign()
        weights.publish()
        assert torch.equal(reference.logprobs(sequences, 6, 0.9), start)
        assert not torch.equal(policy(sequences, 6, 0.9).logprobs, start)


@torch.no_grad()
def test_it_equals_a_policy_that_was_loaded_from_files(tiny_model, tmp_path):
    for family in ("gpt2", "llama", "gemma2"):
        tiny_model(family, vocab_size=101).save_pretrained(tmp_path / family)
        lm = load_causal_lm(str(tmp_path / family))
        assert all(parameter.data_ptr() % 64 == 0 for parameter in lm.parameters())
        reference = Reference(make_trainable(lm, family, lora=None, trainable_layers=None))
        output = PolicyWithValueHead(lm)(_sequences(), 6, 1.0)
        assert torch.equal(output.logprobs, reference.logprobs(_sequences(), 6, 1.0))


def test_a_copy_shares_frozen_weights_and_owns_the_trained_ones(tiny_model):
    trainable, policy, _ = _policy(tiny_model, "top", torch.bfloat16)
    copied = dict(Reference(trainable).model.named_parameters())
    for name, parameter in policy.lm.named_parameters():
        assert (copied[name].data_ptr() == parameter.data_ptr()) == (not parameter.requires_grad), name
        assert not copied[name].requires_grad
        assert not copied[name]._post_accumulate_grad_hooks


def test_an_adapter_needs_no_copy_and_is_on_again_afterwards(tiny_model):
    trainable, policy, _ = _policy(tiny_model, "lora", torch.float32)
    reference = Reference(trainable)
    assert reference.model is trainable.model
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
        before = policy(_sequences(), 6, 1.0).logprobs
        reference.logprobs(_sequences(), 6, 1.0)
        assert torch.equal(policy(_sequences(), 6, 1.0).logprobs, before)
    assert all(p.requires_grad for name, p in policy.named_parameters() if "lora_" in name)
