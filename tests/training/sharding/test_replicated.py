"""Tests of rlhf.training.sharding.replicated, and of what both strategies answer to."""

import inspect

import torch
from torch import nn

from rlhf.training.sharding.fsdp2 import Fsdp2
from rlhf.training.sharding.master_weights import MasterWeights
from rlhf.training.sharding.replicated import Replicated
from rlhf.training.sharding.sharded_weights import ShardedWeights
from rlhf.training.sharding.weights import Weights


def public(kind: type) -> set[str]:
    return {name for name, each in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_fsdp2_answers_to_everything_that_stages_ask_of_whole_weights():
    assert public(Replicated) <= public(Fsdp2)
    for name in public(Replicated):
        assert list(inspect.signature(getattr(Replicated, name)).parameters) == list(
            inspect.signature(getattr(Fsdp2, name)).parameters
        )


def test_both_kinds_of_weights_have_all_methods_of_the_protocol():
    assert public(Weights) <= public(MasterWeights) and public(Weights) <= public(ShardedWeights)


def test_whole_weights_need_no_other_process():
    strategy, module = Replicated(), nn.Linear(2, 1)
    assert strategy.equalised([1, 2], 0) == [(1, True), (2, True)] and strategy.equalised([], 0) == []
    assert strategy.loading_device(torch.device("meta")) == torch.device("meta")
    with strategy.whole(module), strategy.noticing_loss():
        assert strategy.inside(module, lambda: 3) == 3
