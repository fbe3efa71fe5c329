"""Models as people really have them: other widths, other files, other classes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, CodeGenConfig, Cohere2Config, GraniteConfig, OPTConfig

from rlhf.doctor.examination import assembled, checked
from rlhf.errors import ConfigError
from rlhf.models.pretrained.loading import load_causal_lm, load_scalar_lm


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


def _without_class(small, name):
    sizes = {**small.SIZES, "num_key_value_heads": 2}
    if name == "granite":
        return small.of_config(GraniteConfig(**sizes))
    if name == "cohere2":
        return small.of_config(Cohere2Config(**{**sizes, "sliding_window": 8, "layer_norm_eps": 1e-5}))
    heads = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 128, "n_ctx": 128}
    heads |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "initializer_range": 0.2}
    return small.of_config(CodeGenConfig(vocab_size=488, pad_token_id=0, bos_token_id=1, eos_token_id=2, **heads))


@pytest.mark.parametrize("name", ["granite", "cohere2", "codegen"])
@pytest.mark.parametrize("how", ["weights", "random", "adapter"])
def test_a_base_without_a_classification_class_is_refused_with_advice(small, tiny, tmp_path, name, how) -> None:
    model = _without_class(small, name)
    path = small.save(model, tmp_path / "base", tiny)
    if how == "adapter":
        made = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
        made.peft_config["default"].base_model_name_or_path = path
        path = str(tmp_path / "adapter")
        made.save_pretrained(path)
    with pytest.raises(ConfigError) as caught:
        load_scalar_lm(path, new_head=True, random_init=how == "random")
    line = str(caught.value)
    assert "no sequence classification class for this architecture" in line and "\n" not in line
    assert "take another base for the reward model" in line and "local directory" not in line


@pytest.mark.parametrize("name", ["granite", "cohere2", "codegen"])
def test_the_advice_of_another_base_works(small, tiny, workshop, tmp_path, name) -> None:
    path = small.save(_without_class(small, name), tmp_path / "policy", tiny)
    rewards = [{"kind": "model", "path": str(workshop / "reward_model")}]
    made = tiny.parts(tiny.ppo_config(workshop, model__path=path, rewards=rewards))
    assert made.trainer.step([made.prompts[i] for i in range(8)]).updates


@pytest.mark.parametrize("num_files", [1, 2])
def test_weights_in_pickle_files_are_refused_and_the_command_converts_them(
    small, tiny, workshop, tmp_path, environment, num_files
) -> None:
    path = tmp_path / "policy"
    model = load_causal_lm(str(workshop / "policy"))
    small.save(model, path, tiny)
    (path / "model.safetensors").unlink()
    _pickle(model.state_dict(), path, num_files)
    with pytest.raises(ConfigError, match=r"in pytorch_model\.bin alone, .* convert it with: python") as caught:
        load_causal_lm(str(path))
    line = str(caught.value)
    command, target = line.split('python -c "')[1].split('" and give ')
    subprocess.run([sys.executable, "-c", command], check=True, env=environment, capture_output=True)
    converted = load_causal_lm(target)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in converted.state_dict().items())
    made = tiny.parts(tiny.ppo_config(workshop, model__path=target))
    assert made.trainer.step([made.prompts[i] for i in range(8)]).updates


def test_a_classifier_in_a_pickle_file_is_converted_as_one(workshop, tmp_path, environment) -> None:
    path = tmp_path / "rm"
    shutil.copytree(workshop / "reward_model", path)
    model = load_scalar_lm(str(path), new_head=False)
    (path / "model.safetensors").unlink()
    _pickle(model.state_dict(), path, 1)
    with pytest.raises(ConfigError, match="AutoModelForSequenceClassification as M") as caught:
        load_scalar_lm(str(path), new_head=False)
    command, target = str(caught.value).split('python -c "')[1].split('" and give ')
    subprocess.run([sys.executable, "-c", command], check=True, env=environment, capture_output=True)
    assert torch.equal(load_scalar_lm(target, new_head=False).score.weight, model.score.weight)


def _pickle(state, directory: Path, num_files: int) -> None:
    if num_files == 1:
        torch.save(state, directory / "pytorch_model.bin")
        return
    names = {name: f"pytorch_model-0000{1 + place % 2}-of-00002.bin" for place, name in enumerate(state)}
    for file in set(names.values()):
        torch.save({name: state[name] for name in state if names[name] == file}, directory / file)
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
