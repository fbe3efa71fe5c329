"""Tests of rlhf.training.sharding.fsdp2 that need one process; its passes are tested on two."""

import pytest
import torch
from torch import nn

from rlhf.errors import ConfigError, LostProcess
from rlhf.training.launch import Fsdp2Settings
from rlhf.training.sharding.fsdp2 import Fsdp2
from rlhf.training.sharding.sharded_weights import ShardedWeights


def unjoined(*blocks: str) -> Fsdp2:
    """A strategy without other processes."""
    strategy = object.__new__(Fsdp2)
    strategy.settings = Fsdp2Settings(True, False, blocks)
    return strategy


def test_one_process_shards_nothing():
    with pytest.raises(
        ConfigError, match="FSDP over 1 process shards nothing - set num_processes to 2 or more"
    ) as told:
        Fsdp2(Fsdp2Settings(True, False, ()), torch.device("cpu"), 1, 0)
    assert told.value.exit_status == 2


def test_blocks_of_another_class_than_the_file_names_are_refused():
    with pytest.raises(
        ConfigError, match="layer_cls_to_wrap: GPT2Block, but the blocks of the model are Linear - leave"
    ):
        unjoined("GPT2Block").shard(nn.Linear(2, 2), (), [nn.Linear(2, 2)], torch.float32)


def test_a_weight_that_is_a_single_number_is_refused_by_name():
    module = nn.Linear(2, 2)
    module.scale = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ConfigError, match="FSDP cannot shard scale, a single number"):
        unjoined().shard(module, (), [], torch.float32)


def test_an_error_of_the_communication_library_becomes_one_line_and_no_other_does():
    with (
        pytest.raises(LostProcess, match="another process ended.*Connection reset by peer"),
        unjoined().noticing_loss(),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer\nmore")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), unjoined().noticing_loss():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(("rank", "gathered"), [(0, None), (1, {})])
def test_weights_in_shards_are_saved_by_the_first_process_once_all_have_gathered_them(rank, gathered):
    weights = object.__new__(ShardedWeights)
    weights._sharding, weights._gathered = unjoined(), gathered
    weights._sharding.rank = rank
    with pytest.raises(ValueError, match=r"gather\(\) comes before, on every process"), weights.in_full_precision():
        pass
