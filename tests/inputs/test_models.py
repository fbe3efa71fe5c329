"""Models as people really have them: other widths, other files, other classes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    CodeGenConfig,
    Cohere2Config,
    Gemma3Config,
    GraniteConfig,
    OPTConfig,
)

from rlhf import generate
from rlhf.config import EvaluateConfig
from rlhf.config.reading.loader import validate
from rlhf.doctor.examination import assembled, checked
from rlhf.errors import ConfigError
from rlhf.evaluation.assembly import evaluate as evaluate_stage
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


@pytest.mark.sweep
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


@pytest.mark.sweep
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


@pytest.mark.sweep
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


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["granite", "cohere2", "codegen"])
def test_the_advice_of_another_base_works(small, tiny, workshop, tmp_path, name) -> None:
    path = small.save(_without_class(small, name), tmp_path / "policy", tiny)
    rewards = [{"kind": "model", "path": str(workshop / "reward_model")}]
    made = tiny.parts(tiny.ppo_config(workshop, model__path=path, rewards=rewards))
    assert made.trainer.step([made.prompts[i] for i in range(8)]).updates


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.fixture
def instruct(workshop, tmp_path):
    """A policy that ships settings of its own, as most instruct models do."""
    path = tmp_path / "instruct"
    shutil.copytree(workshop / "policy", path)
    settings = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "pad_token_id": 0, **settings}))
    return path


def test_rollouts_ignore_generation_config_and_say_so_once(tiny, workshop, instruct, capsys) -> None:
    # verl-project/verl#7270: rollouts took the checkpoint's repetition_penalty, and the training pass did not.
    rollouts = []
    for path in (instruct, workshop / "policy"):
        made = tiny.parts(tiny.ppo_config(workshop, model__path=str(path)))
        rollouts.append(tiny.collected(made).rollout)
    assert torch.equal(rollouts[0].response_ids, rollouts[1].response_ids)
    lines = [line for line in capsys.readouterr().out.splitlines() if "generation_config.json" in line]
    assert len(lines) == 1
    assert (
        "sets temperature 0.7, top_k 20, top_p 0.8, repetition_penalty 1.05; rollouts draw from the whole" in lines[0]
    )


@pytest.mark.slow
def test_the_doctor_says_it_too(tiny, workshop, instruct) -> None:
    findings = {each.name: each for each in checked(assembled(tiny.ppo_config(workshop, model__path=str(instruct))))}
    assert findings["decoding"].state == "ok" and "top_p 0.8" in findings["decoding"].line
    assert findings["sampler"].state == "ok"
    assert "decoding" not in {each.name for each in checked(assembled(tiny.ppo_config(workshop)))}


@pytest.mark.slow
def test_answers_take_it_where_that_is_asked_for(instruct, workshop, tmp_path) -> None:
    prompts = ["The film", "At last"] * 10

    def texts(path, **options):
        rows = generate(str(path), prompts, max_new_tokens=8, precision="float32", **options)
        return [row["response"] for row in rows]

    plain, own = texts(workshop / "policy"), texts(instruct, filters="model")
    assert texts(instruct) == plain != own
    assert texts(workshop / "policy", filters="model") == plain  # it ships nothing
    settings = json.loads((instruct / "generation_config.json").read_text())
    (instruct / "generation_config.json").write_text(json.dumps({**settings, "top_k": 1}))
    assert texts(instruct, filters="model") == texts(instruct, filters="model", seed=5)


@pytest.mark.sweep
@pytest.mark.parametrize("decoding", ["model", {"filters": "model", "max_new_tokens": 48}])
def test_evaluation_takes_decoding_model(workshop, instruct, tmp_path, decoding) -> None:
    given = {"output_dir": str(tmp_path / "run"), "policies": {"a": str(instruct), "b": str(workshop / "policy")}}
    given |= {"prompts": {"path": str(workshop / "prompts.jsonl")}, "precision": "float32", "decoding": decoding}
    config = validate(EvaluateConfig, given, "file")
    assert (config.decoding.filters, config.decoding.max_new_tokens) == ("model", 48)
    assert evaluate_stage(config).is_file()


@pytest.mark.slow
def test_a_setting_that_the_sampler_lacks_is_refused(instruct) -> None:
    file = instruct / "generation_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "no_repeat_ngram_size": 3}))
    with pytest.raises(ConfigError, match=r"sets no_repeat_ngram_size, .* - take it out there, or set decoding"):
        generate(str(instruct), ["So"], filters="model")
    assert generate(str(instruct), ["So"], filters="none")
    file.write_text(json.dumps(settings))
    assert generate(str(instruct), ["So"], filters="model")


@pytest.mark.slow
def test_a_model_whose_sizes_lie_in_a_text_config_has_a_value_head(small, tiny, workshop, tmp_path) -> None:
    # huggingface/trl#3828: Gemma 3's hidden_size was looked for beside text_config, and not found.
    text = {**small.SIZES, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    tokens = {"boi_token_index": 5, "eoi_token_index": 6, "image_token_index": 7, "mm_tokens_per_image": 4}
    model = small.of_config(Gemma3Config(text_config=text, vision_config=vision, **tokens))
    path = small.save(model, tmp_path / "gemma3", tiny)
    made = tiny.parts(tiny.ppo_config(workshop, model__path=path))
    assert made.trainer.policy.value_head.linear.in_features == 32
    assert made.trainer.step([made.prompts[i] for i in range(8)]).updates


def test_a_critic_with_two_labels_is_refused_before_the_first_step(tiny, workshop, tmp_path) -> None:
    # huggingface/trl#3269: "The size of tensor a (53) must match the size of tensor b (2)" in the middle of a step.
    path = tmp_path / "two"
    AutoModelForSequenceClassification.from_pretrained(workshop / "policy", num_labels=2).save_pretrained(path)
    tiny.give_tokenizer(path)
    separate = {"critic": "separate", "critic_model": {"path": str(path)}}
    with pytest.raises(ConfigError, match="needs 1 label, found 2 - train one with `rlhf reward-model`"):
        tiny.parts(tiny.ppo_config(workshop, **separate))


def test_do_sample_false_of_a_model_is_honoured(instruct, workshop) -> None:
    file = instruct / "generation_config.json"
    settings = {"eos_token_id": json.loads(file.read_text()).get("eos_token_id"), "temperature": 0.7}
    prompts = ["The film", "At last", "So"] * 3

    def texts(**options):
        rows = generate(str(instruct), prompts, max_new_tokens=8, precision="float32", **options)
        return [row["response"] for row in rows]

    drawn = {}
    for do_sample in (False, True):
        file.write_text(json.dumps({**settings, "do_sample": do_sample}))
        drawn[do_sample] = texts(filters="model")
    assert drawn[False] == texts(temperature=0) != drawn[True]
