"""Models as people really have them: other widths, other files, other classes."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, OPTConfig

from rlhf.doctor.examination import assembled, checked


@pytest.fixture(scope="session")
def small(module):
    """The module `small_models.py`."""
    return module(Path(__file__).with_name("small_models.py"))


@pytest.fixture
def opt(small, tiny, tmp_path):
    """An OPT whose head reads another width than its blocks have, as OPT-350m's does."""
    sizes = {**small.SIZES, "ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False, "dropout": 0.0}
    sizes.pop("intermediate_size"), sizes.pop("initializer_range")
    config = OPTConfig(**sizes, init_std=0.2)
    path = small.save(small.of_config(config), tmp_path / "opt", tiny)
    config.num_labels = 1
    critic = small.of_config(config, AutoModelForSequenceClassification)
    return path, small.save(critic, tmp_path / "opt-critic", tiny)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="all weights"),
        pytest.param({"model__trainable_layers": 1}, id="one layer"),
        pytest.param({"model__lora": {"r": 2}}, id="lora"),
    ],
)
def test_the_value_head_reads_what_the_output_embedding_reads(tiny, workshop, opt, changes) -> None:
    policy, _ = opt
    made = tiny.parts(tiny.ppo_config(workshop, model__path=policy, **changes))
    rollout = tiny.collected(made).rollout
    assert made.trainer.policy.value_head.linear.in_features == 16
    made.trainer.policy.value_head.linear.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    assert tiny.collected(made).rollout.values[rollout.response_mask].std() > 0
    assert made.trainer.step([made.prompts[i] for i in range(8)]).updates


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_a_separate_critic_reads_what_its_score_reads(tiny, workshop, opt, lora) -> None:
    _, critic = opt
    separate = {"critic": "separate", "critic_model": {"path": critic, "lora": lora}}
    made = tiny.parts(tiny.ppo_config(workshop, **separate))
    assert made.trainer.policy.value_head.linear.in_features == 16
    assert made.trainer.step([made.prompts[i] for i in range(8)]).updates


def test_the_doctor_examines_another_width(tiny, workshop, opt) -> None:
    config = tiny.ppo_config(workshop, model__path=opt[0], model__trainable_layers=1)
    states = {finding.name: finding.state for finding in checked(assembled(config))}
    assert {states[name] for name in ("sampler", "ratio", "KL", "critic", "memory")} == {"ok"}
