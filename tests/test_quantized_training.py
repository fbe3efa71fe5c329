"""Adapters on quantized bases: SFT, the reward model and PPO, whole runs on tiny models."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

from rlhf.api.models import given_policy
from rlhf.cli import main
from rlhf.config import RewardModelConfig, SftConfig
from rlhf.config.reading.loader import load_config
from rlhf.config.shared import TuningSection
from rlhf.doctor.memory import already_loaded
from rlhf.errors import ConfigError
from rlhf.models.passes.quantized import LAYERS, quantized_layers, quantized_tensors
from rlhf.models.pretrained.adapters import merged_state
from rlhf.models.pretrained.loading import load_causal_lm, load_scalar_lm
from rlhf.models.pretrained.setup import make_trainable
from rlhf.ppo import train_ppo
from rlhf.ppo.run.assembly import save_parts
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.steps import PPOSteps
from rlhf.reward_model import train_reward_model
from rlhf.sampling.packed import is_packable
from rlhf.sft import train_sft

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'rlhf-ppo[quantized]'")
pytestmark = pytest.mark.usefixtures("in_the_repository")

KINDS = tuple(LAYERS)
LORA = {"r": 4, "alpha": 8.0}


@pytest.fixture
def wide(tiny_model, tiny, tmp_path):
    """The directory of a tiny model whose rows are whole blocks of NF4, with the tokenizer of data/tiny_model."""
    model = tiny_model("llama", vocab_size=488, hidden_size=64, intermediate_size=128, head_dim=16)
    model.save_pretrained(tmp_path / "wide")
    tiny.give_tokenizer(tmp_path / "wide")
    return tmp_path / "wide"


def ppo(tiny, workshop, output, kind, **changes):
    settings = {"model__lora": LORA, "model__quantize": kind, "optimizer__learning_rate": 1e-2, "steps": 3}
    return tiny.ppo_config(workshop, output_dir=str(output), **(settings | changes))


@pytest.mark.sweep
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_ppo_begins_at_ratio_one_and_kl_zero_and_moves_the_adapter_alone(tiny, workshop, tmp_path, kind, precision):
    made = tiny.parts(ppo(tiny, workshop, tmp_path, kind, model__precision=precision))
    lm, weights = made.trained.model, made.trainer.optimizer.weights
    before = [tensor.clone() for tensor in quantized_tensors(lm)]
    others = {name: p.clone() for name, p in lm.named_parameters() if not p.requires_grad}
    assert len(before) == 28 and not is_packable(lm)
    steps = PPOSteps(made.trainer, ListedPrompts(made.prompts, made.trainer.config), tmp_path)
    rows = [steps.step(index) for index in range(3)]
    assert [row["val/first_ratio_deviation"] for row in rows] == [0.0, 0.0, 0.0]
    assert rows[0]["objective/kl"] == 0.0 and rows[2]["objective/kl"] != 0.0
    assert all(map(torch.equal, quantized_tensors(lm), before))
    assert all(torch.equal(dict(lm.named_parameters())[name], weight) for name, weight in others.items())
    assert weights.masters.keys() == {name for name, p in weights.module.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or name.startswith("value_head") for name in weights.masters)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "precision"), [("nf4", "bfloat16"), ("int8", "float32")])
def test_ppo_stopped_and_resumed_ends_in_the_same_bytes(
    tiny, workshop, tmp_path, stopped_after_two_steps, on_disk, kind, precision
):
    made = partial(ppo, tiny, workshop, kind=kind, model__precision=precision, steps=4)
    train_ppo(made(output=tmp_path / "whole"))
    stopped_after_two_steps(made(output=tmp_path / "halves"))
    assert not (tmp_path / "halves" / "policy").exists()
    train_ppo(made(output=tmp_path / "halves"))
    assert on_disk.timeless(tmp_path / "halves") == on_disk.timeless(tmp_path / "whole")
    assert on_disk.digests(tmp_path / "halves") == on_disk.digests(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_sft_learns_and_ppo_goes_on_with_its_adapter(tiny, workshop, tmp_path, on_disk, kind, capsys):
    sft = ["epochs=null", "steps=30", "model.random_init=false", f"model.path={workshop / 'policy'}"]
    sft += ["model.lora={r: 8}", f"model.quantize={kind}", f"output_dir={tmp_path / 'sft'}"]
    policy = train_sft(load_config(SftConfig, Path("configs/smoke/sft.yaml"), [*sft, "optimizer.learning_rate=1e-2"]))
    losses = [row["loss"] for row in on_disk.metrics(tmp_path / "sft")]
    assert losses[-1] < 0.9 * losses[0]
    train_ppo(ppo(tiny, workshop, tmp_path / "ppo", kind, model__path=str(policy), model__lora="continue"))
    rows = on_disk.metrics(tmp_path / "ppo")
    assert rows[0]["objective/kl"] == 0.0 and rows[0]["val/first_ratio_deviation"] == 0.0
    assert rows[-1]["objective/kl"] != 0.0
    assert capsys.readouterr().out.count(f"policy: {kind}: 14 linear layers, ") == 2, "said by both stages"
    named = json.loads((tmp_path / "ppo/policy/adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(workshop / "policy")


@pytest.mark.slow
def test_a_new_adapter_on_a_merged_one_saves_the_base_that_it_was_trained_on(tiny, workshop, tmp_path):
    first = train_ppo(ppo(tiny, workshop, tmp_path / "first", None, steps=1))
    second = train_ppo(ppo(tiny, workshop, tmp_path / "second", "nf4", model__path=str(first), steps=1))
    base = load_causal_lm(str(tmp_path / "second/base_model"))
    whole = load_causal_lm(str(first))
    name = "model.layers.0.mlp.up_proj.weight"
    found, exact = base.state_dict()[name], whole.state_dict()[name]
    assert not torch.equal(found, exact) and len(found.unique()) <= 16 * found.numel() // 64
    assert torch.equal(base.state_dict()["model.norm.weight"], whole.state_dict()["model.norm.weight"])
    assert (
        Path(json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"]).name == "base_model"
    )


@pytest.mark.slow
def test_peft_loads_the_adapter_on_the_same_quantized_base_and_says_what_the_policy_says(
    tiny, workshop, wide, tmp_path
):
    made = tiny.parts(ppo(tiny, workshop, tmp_path, "nf4", model__path=str(wide)))
    tiny.stir(made.trainer, 0.05, seed=1)
    tiny_card = type("NoCard", (), {"write": lambda *_, **__: None})()
    save_parts(made, tmp_path / "policy", tmp_path / "critic", tiny_card)
    ids = torch.arange(3, 33).view(2, 15)
    expected = made.trained.model(ids).logits
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="float32")
    base = AutoModelForCausalLM.from_pretrained(wide, quantization_config=quantization, dtype=torch.float32)
    for module in base.modules():
        module.support_avx512bf16_for_cpu = False  # else it computes in bfloat16 on some processors
    theirs = PeftModel.from_pretrained(base, str(tmp_path / "policy")).eval()
    torch.testing.assert_close(theirs(ids).logits, expected, rtol=1e-4, atol=1e-4)
    whole = PeftModel.from_pretrained(load_causal_lm(str(wide)), str(tmp_path / "policy")).eval()
    assert not torch.allclose(whole(ids).logits, expected, atol=1e-2), "the base as it was says something else"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_is_saved_whole_as_it_was_trained_and_ranks(workshop, tmp_path, on_disk, kind):
    more = ["model.random_init=false", f"model.path={workshop / 'policy'}", "model.lora={r: 4}", "epochs=6"]
    more += [f"model.quantize={kind}", "optimizer.learning_rate=1e-2", f"output_dir={tmp_path / 'rm'}"]
    directory = train_reward_model(load_config(RewardModelConfig, Path("configs/smoke/reward_model.yaml"), more))
    assert on_disk.metrics(tmp_path / "rm")[-1]["eval/accuracy"] == 1.0
    model = AutoModelForSequenceClassification.from_pretrained(directory)
    assert model.config.num_labels == 1 and not hasattr(model.config, "quantization_config")
    start = load_scalar_lm(str(workshop / "policy"), new_head=True, quantize=kind)
    layer = dict(quantized_layers(start))["model.layers.0.mlp.up_proj"]
    saved = load_file(directory / "model.safetensors")
    assert saved["model.layers.0.mlp.up_proj.weight"].dtype == torch.float32
    delta = saved["model.layers.0.mlp.up_proj.weight"] - layer.dequantized(torch.float32)
    # What is left beside the base is the adapter, of rank 4.
    values = torch.linalg.svdvals(delta)
    assert values[3] > 0 and values[4] < 1e-5 * values[0]


def test_the_weights_of_a_quantized_base_are_about_a_quarter(tiny, workshop, wide, tmp_path):
    made = tiny.parts(ppo(tiny, workshop, tmp_path, "nf4", model__path=str(wide), model__precision="bfloat16"))
    layers = [layer for _, layer in quantized_layers(made.trained.model)]
    held = sum(tensor.nbytes for layer in layers for tensor in layer.buffers())
    in_bfloat16 = sum(2 * layer.in_features * layer.out_features for layer in layers)
    assert held / in_bfloat16 == (4 + 32 / 64) / 16
    kept = made.trainer.optimizer.weights.frozen.kept
    assert not any("proj" in name for name in kept), "no float32 copy of a quantized weight is kept"


def test_a_policy_for_a_server_of_whole_models_has_the_sum(tiny, workshop, tmp_path):
    made = tiny.parts(ppo(tiny, workshop, tmp_path, "int8"))
    tiny.stir(made.trainer, 0.05, seed=1)
    state = merged_state(made.trained.model)
    plain = load_causal_lm(str(workshop / "policy"))
    plain.load_state_dict(state)
    ids = torch.arange(3, 33).view(2, 15)
    torch.testing.assert_close(plain(ids).logits, made.trained.model(ids).logits, rtol=1e-4, atol=1e-4)


def test_greedy_decoding_says_what_the_model_says(tiny, workshop):
    from rlhf.batches import PromptBatch
    from rlhf.sampling.sampler import sample

    model = load_causal_lm(str(workshop / "policy"), quantize="nf4")
    assert not is_packable(model) and is_packable(load_causal_lm(str(workshop / "policy")))
    ids = torch.tensor([[5, 9, 11], [7, 8, 0]])
    prompts = PromptBatch(prompt_ids=ids, prompt_mask=torch.tensor([[True] * 3, [True, True, False]]))
    drawn = sample(
        model, prompts, max_new_tokens=6, temperature=0.0, eos_ids=(), generator=torch.Generator().manual_seed(0)
    )
    for row, length in enumerate([3, 2]):
        text = ids[row, :length].tolist()
        for token in drawn.response_ids[row].tolist():
            assert int(model(torch.tensor([text])).logits[0, -1].argmax()) == token
            text.append(token)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([], "quantize: nf4 holds weights that no gradient can change - set lora: {r: 16}, or set quantize to null"),
        (["model.trainable_layers=1"], "quantize: nf4 holds weights that no gradient can change"),
        (["model.lora={r: 2}", "compile=on"], "compile: on and model.quantize exclude each other: leave one out"),
        (["model.lora={r: 2}", "model.quantize=fp4"], "model.quantize: "),
        (["model.lora={r: 2}"], "quantization_config, and rlhf trains and asks whole weights only"),
    ],
)
def test_what_cannot_be_quantized_ends_with_status_2_and_one_line(workshop, tmp_path, capsys, changes, said):
    quantized = tmp_path / "quantized"
    load_causal_lm(str(workshop / "policy")).save_pretrained(quantized)
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (quantized / "config.json").write_text(json.dumps(config))
    command = ["sft", "--config", "configs/smoke/sft.yaml", f"output_dir={tmp_path / 'sft'}", f"model.path={quantized}"]
    assert main([*command, "model.random_init=false", "model.quantize=nf4", *changes]) == 2
    errors = capsys.readouterr().err
    assert said in errors and "Traceback" not in errors


def test_without_bitsandbytes_a_run_ends_with_status_2_and_the_extra(workshop, tmp_path, capsys, monkeypatch):
    import sys

    from rlhf.models.passes.quantized import library

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    library.cache_clear()
    command = ["sft", "--config", "configs/smoke/sft.yaml", f"output_dir={tmp_path}", f"model.path={workshop}/policy"]
    try:
        assert main([*command, "model.random_init=false", "model.lora={r: 2}", "model.quantize=nf4"]) == 2
    finally:
        library.cache_clear()
    line = "model.quantize needs bitsandbytes, which is not installed - pip install 'rlhf-ppo[quantized]'"
    assert line in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_given_from_python_is_quantized_like_one_that_was_named(tiny, workshop):
    policies = [str(workshop / "policy"), AutoModelForCausalLM.from_pretrained(workshop / "policy")]
    tokenizer = AutoTokenizer.from_pretrained(workshop / "policy")
    tuning = TuningSection(lora=LORA, quantize="nf4")
    held = [quantized_tensors(given_policy(policy, tuning, tokenizer).model) for policy in policies]
    assert len(held[0]) == 28 and all(map(torch.equal, *held))


def test_from_python_an_adapter_on_whole_weights_and_weights_quantized_by_others_are_refused(workshop):
    tokenizer = AutoTokenizer.from_pretrained(workshop / "policy")
    policy = load_causal_lm(str(workshop / "policy"))
    adapter = make_trainable(
        policy, "", lora={**LORA, "dropout": 0.0, "target_modules": "all-linear"}, trainable_layers=None
    )
    tuning = TuningSection(lora="continue", quantize="nf4")
    with pytest.raises(ConfigError, match="the policy has its adapter on whole weights - give the adapter's directory"):
        given_policy(adapter.adapter, tuning, tokenizer)
    theirs = AutoModelForCausalLM.from_pretrained(
        workshop / "policy", quantization_config=BitsAndBytesConfig(load_in_8bit=True)
    )
    theirs.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(ConfigError, match="^policy: it is quantized already, and rlhf takes whole weights"):
        given_policy(theirs, TuningSection(lora=LORA), tokenizer)


def test_the_doctor_counts_what_a_quantized_policy_takes(tiny, workshop, tmp_path):
    made = tiny.parts(ppo(tiny, workshop, tmp_path, "int8"))
    counted = already_loaded(made)
    expected = sum(weight.nbytes for weight in made.trainer.policy.parameters())
    assert counted.policy == expected + sum(tensor.nbytes for tensor in quantized_tensors(made.trained.model))
    assert counted.reference == 0


@pytest.mark.slow
def test_a_separate_critic_is_quantized_too_and_saved_whole(tiny, workshop, tmp_path, on_disk):
    critic = {"path": str(workshop / "reward_model"), "lora": LORA, "quantize": "int8"}
    config = ppo(tiny, workshop, tmp_path / "ppo", "nf4", critic="separate", critic_model=critic, steps=1)
    train_ppo(config)
    assert on_disk.metrics(tmp_path / "ppo")[0]["val/first_ratio_deviation"] == 0.0
    start = load_scalar_lm(str(workshop / "reward_model"), new_head=False, quantize="int8")
    layer = dict(quantized_layers(start))["model.layers.0.mlp.up_proj"]
    saved = load_file(tmp_path / "ppo/critic/model.safetensors")
    assert saved.keys() == load_file(workshop / "reward_model/model.safetensors").keys()
    change = saved["model.layers.0.mlp.up_proj.weight"] - layer.dequantized(torch.float32)
    values = torch.linalg.svdvals(change)
    assert values[3] > 0 and values[4] < 1e-4 * values[0]
