"""Tests of rlhf.stage.rules."""

from pathlib import Path

import pytest

from rlhf.config import PPOConfig
from rlhf.config.reading.loader import load_config
from rlhf.errors import ConfigError
from rlhf.stage.rules import check_sharded

pytestmark = pytest.mark.usefixtures("in_the_repository")


def config(*changes: str) -> PPOConfig:
    return load_config(PPOConfig, Path("configs/smoke/ppo.yaml"), list(changes))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (["model.gradient_checkpointing=true"], "model.gradient_checkpointing"),
        (
            ["critic=separate", "critic_model={path: a, gradient_checkpointing: true}"],
            "critic_model.gradient_checkpointing",
        ),
        (["model.lora={r: 2}", "model.quantize=nf4"], "model.quantize"),
        (["deterministic=true"], "deterministic"),
        (["release_gradients=true"], "release_gradients"),
        (["reference_on_host=true"], "reference_on_host"),
        (["optimizer.moments=8bit"], "optimizer.moments"),
        (["value_optimizer.moments=8bit"], "value_optimizer.moments"),
        (["guards.rollback={times: 1}"], "guards.rollback"),
        (["eval_every=1", "best={metric: objective/kl, load_at_end: true}"], "best.load_at_end"),
    ],
)
def test_what_was_not_seen_to_work_on_weights_in_shards_is_refused_by_its_key(changes, key):
    with pytest.raises(ConfigError, match=rf"^{key}: is not supported for weights in shards \(FSDP\) - leave it out"):
        check_sharded(config(*changes))


def test_shards_are_not_compiled():
    with pytest.raises(ConfigError, match="compile: on, but blocks in shards"):
        check_sharded(config("compile=on"))


def test_nothing_else_is_refused_for_weights_in_shards():
    check_sharded(config("compile=auto"))
