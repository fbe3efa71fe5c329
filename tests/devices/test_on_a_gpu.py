"""What is promised on CUDA. Skipped without a GPU: these tests have not run yet."""

import pytest
import torch

from rlhf.ppo import train_ppo

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")]


def config(tiny, workshop, directory, **changes):
    settings = {"output_dir": str(directory), "steps": 4, "deterministic": True, "checkpoints__every": 1}
    return tiny.ppo_config(workshop, **settings, **changes)


def weights(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.safetensors"))}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_ratio_is_1_and_the_first_kl_is_0(tiny, workshop, precision):
    made = tiny.parts(tiny.ppo_config(workshop, model__precision=precision))
    result = made.trainer.step(made.prompts)
    assert all(weight.is_cuda for weight in made.trainer.policy.parameters())
    assert result.updates[0].ratio_deviation == 0.0
    assert float(result.experience.kl.abs().max()) == 0.0


def test_a_deterministic_run_that_was_stopped_ends_in_the_same_bytes(tiny, workshop, tmp_path, stopped_after_two_steps):
    settings = {"model__precision": "bfloat16", "model__trainable_layers": 1}
    whole = train_ppo(config(tiny, workshop, tmp_path / "whole", **settings))
    stopped_after_two_steps(config(tiny, workshop, tmp_path / "stopped", **settings))
    resumed = train_ppo(config(tiny, workshop, tmp_path / "stopped", **settings))
    assert weights(whole) and weights(resumed) == weights(whole)


def test_gradient_checkpointing_changes_no_bit_in_deterministic_mode(tiny, workshop, tmp_path):
    ended = [
        weights(train_ppo(config(tiny, workshop, tmp_path / str(switch), model__gradient_checkpointing=switch)))
        for switch in (False, True)
    ]
    assert ended[0] == ended[1]
