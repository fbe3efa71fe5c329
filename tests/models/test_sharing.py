import copy

import pytest
import torch
from torch import nn

from rlhf.models.sharing import share_equal_weights


def linear(seed, *, trained=False, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Linear(16, 8).to(dtype).requires_grad_(trained)


def is_shared(one, other):
    return one.data_ptr() == other.data_ptr()


def test_equal_frozen_weights_of_two_models_lie_in_one_memory_and_keep_their_values():
    one, other = linear(0), linear(0)
    before = copy.deepcopy(other.state_dict())
    assert share_equal_weights([one, other]) == 4 * (16 * 8 + 8)
    assert is_shared(one.weight, other.weight) and is_shared(one.bias, other.bias)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert share_equal_weights([one, other]) == 0  # what is shared is not counted again


@pytest.mark.parametrize("change", ["trained", "type", "last element", "first element"])
def test_what_differs_or_is_trained_stays_apart(change):
    one, other = linear(0), linear(0, trained=change == "trained")
    if change == "type":
        other = other.to(torch.float64)
    elif change.endswith("element"):
        with torch.no_grad():
            other.weight.flatten()[-1 if change.startswith("last") else 0] += 1e-3
    share_equal_weights([one, other])
    assert not is_shared(one.weight, other.weight)


def test_a_trained_model_may_share_what_it_has_frozen():
    policy = nn.Sequential(linear(0), linear(1, trained=True))
    reward = nn.Sequential(linear(0), linear(1))
    share_equal_weights([policy, reward])
    assert is_shared(policy[0].weight, reward[0].weight)
    assert not is_shared(policy[1].weight, reward[1].weight)


def test_equal_weights_of_one_model_stay_apart_and_each_is_shared_with_another_models():
    one, other = (nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4)).requires_grad_(False) for _ in range(2))
    assert share_equal_weights([one, other]) == 4 * 4 * 4
    places = [module.weight.data_ptr() for module in one], [module.weight.data_ptr() for module in other]
    assert len(set(places[0])) == len(set(places[1])) == 2 and set(places[0]) == set(places[1])


def test_a_tied_weight_stays_tied():
    tied = nn.Sequential(linear(0), nn.Linear(16, 8).requires_grad_(False))
    tied[1].weight = tied[0].weight
    other = linear(0)
    assert share_equal_weights([tied, other]) == 4 * (16 * 8 + 8)
    assert tied[1].weight is tied[0].weight
