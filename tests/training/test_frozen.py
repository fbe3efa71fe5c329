"""Tests of rlhf.training.frozen: frozen weights are held once, and come back exactly."""

import pytest
import torch
from torch import nn

from rlhf.errors import CheckpointError
from rlhf.training.sharding.master_weights import MasterWeights


def module(seed=0):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    made[0].requires_grad_(False)
    with torch.no_grad():
        made[0].bias.copy_(made[0].bias.bfloat16())  # as published: rounding changes nothing
    return made


def values(made):
    return {name: parameter.detach().clone() for name, parameter in made.named_parameters()}


@pytest.mark.parametrize("source", [None, module])
def test_in_full_precision_frozen_weights_are_what_they_were(source):
    made, expected = module(), values(module())
    weights = MasterWeights(made, torch.bfloat16, sources={} if source is None else {"": source})
    assert {parameter.dtype for parameter in made.parameters()} == {torch.bfloat16}
    # What rounding did not change is never kept, and with a source nothing is.
    assert set(weights.frozen.kept) == ({"0.weight"} if source is None else set())
    state = torch.get_rng_state()
    with weights.in_full_precision():
        assert all(torch.equal(value, expected[name]) for name, value in values(made).items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(made[0].weight, expected["0.weight"].bfloat16())


def test_a_source_that_has_changed_is_refused_and_nothing_is_put_in():
    made = module()
    weights = MasterWeights(made, torch.bfloat16, sources={"": lambda: module(seed=1)})
    problem = "has changed since: 0.weight is not what it was"
    with pytest.raises(CheckpointError, match=problem), weights.in_full_precision():
        pass
    assert made[0].weight.dtype == torch.bfloat16
    weights = MasterWeights(module(), torch.bfloat16, sources={"": nn.Sequential})
    with pytest.raises(CheckpointError, match="0.weight is not what it was"), weights.in_full_precision():
        pass


def test_what_is_loaded_into_frozen_weights_stays_though_the_source_does_not_have_it():
    made, other = module(), values(module(seed=2))
    weights = MasterWeights(made, torch.bfloat16, sources={"": module})
    with torch.no_grad(), weights.in_full_precision(takes_changes=True):
        made.load_state_dict(other)
    assert torch.equal(made[0].weight, other["0.weight"].bfloat16())
    assert torch.equal(made[1].weight, other["1.weight"].bfloat16())
    with weights.in_full_precision():
        assert all(torch.equal(value, other[name]) for name, value in values(made).items())


def test_parts_have_sources_of_their_own():
    whole = nn.ModuleDict({"lm": module(), "critic": module(seed=3)})
    expected = values(whole)
    sources = {"lm.": module, "critic.": lambda: module(seed=3)}
    weights = MasterWeights(whole, torch.bfloat16, sources=sources)
    assert not weights.frozen.kept
    with weights.in_full_precision():
        assert all(torch.equal(value, expected[name]) for name, value in values(whole).items())


@pytest.mark.slow
def test_a_run_holds_frozen_weights_in_two_bytes_and_reads_them_again_from_its_model(tiny, workshop):
    settings = {"model__precision": "bfloat16", "model__trainable_layers": 1, **tiny.separate(workshop)}
    settings["critic_model"] = {**settings["critic_model"], "trainable_layers": 1}
    made = tiny.parts(tiny.ppo_config(workshop, **settings))
    weights, plain = made.trainer.optimizer.weights, tiny.parts(tiny.ppo_config(workshop)).trainer.policy
    expected = values(plain)
    assert not weights.frozen.kept
    assert all(p.element_size() == 2 for p in made.trainer.policy.parameters() if not p.requires_grad)
    with weights.in_full_precision():
        found = values(made.trainer.policy)
    assert found["lm.model.embed_tokens.weight"].dtype == torch.float32
    assert all(torch.equal(found[name], value) for name, value in expected.items() if name.startswith("lm."))
