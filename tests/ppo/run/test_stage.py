"""Tests of rlhf.ppo.run.stage: what is put together, refused and saved, in one process and in two."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf.batches import join
from rlhf.errors import ConfigError, RlhfError
from rlhf.ppo import train_ppo
from rlhf.training.processes import Processes


def without_ties(means: dict[str, float]) -> dict[str, float]:
    """Leave out the share of clipped values, which a rounding error turns over where nothing is clipped."""
    return {name: mean for name, mean in means.items() if name != "value_clipped"}


@pytest.fixture(scope="module")
def two_processes(
    tiny: ModuleType, workshop: Path, in_two_processes: Callable[[list[str]], list[str]]
) -> list[dict[str, Any]]:
    """What each of two gloo processes saw; see `_main` in tiny_ppo.py."""
    made = tiny.parts(tiny.ppo_config(workshop))
    tiny.stir(made.trainer, 0.01, seed=3)
    rollout = tiny.collected(made).rollout
    torch.save({name: getattr(rollout, name) for name in rollout.__slots__}, workshop / "rollout.pt")
    in_two_processes([sys.executable, str(Path(__file__).parents[1] / "tiny_ppo.py"), str(workshop)])
    return [torch.load(workshop / f"seen-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def one_process(tiny: ModuleType, workshop: Path, two_processes: object) -> dict[str, Any]:
    from rlhf.batches import Rollout

    return tiny.one_global_update(workshop, Rollout(**torch.load(workshop / "rollout.pt")), Processes())


@pytest.mark.slow
def test_two_processes_take_the_same_update_as_one(
    one_process: dict[str, Any], two_processes: list[dict[str, Any]]
) -> None:
    assert [seen["num"] for seen in two_processes] == [2, 2]
    for seen in two_processes:
        assert without_ties(seen["means"]) == pytest.approx(without_ties(one_process["means"]), rel=1e-4, abs=1e-6)
        assert seen["grad_norm"] == pytest.approx(one_process["grad_norm"], rel=1e-4)
        for name, gradient in one_process["gradients"].items():
            torch.testing.assert_close(seen["gradients"][name], gradient, rtol=1e-4, atol=1e-6)
    first, second = (seen["weights"] for seen in two_processes)
    assert all(torch.equal(first[name], second[name]) for name in first), "the processes stay in step"


def test_two_processes_whiten_over_the_global_batch(
    one_process: dict[str, Any], two_processes: list[dict[str, Any]]
) -> None:
    for rank, seen in enumerate(two_processes):
        torch.testing.assert_close(seen["advantages"], one_process["advantages"][rank::2], rtol=1e-5, atol=1e-5)
        assert seen["sequence_kl"] == pytest.approx(one_process["sequence_kl"], rel=1e-5)


def test_a_reward_that_fails_on_one_process_is_named_on_all(two_processes: list[dict[str, Any]]) -> None:
    for seen in two_processes:
        assert seen["error"].startswith("RewardError: ") and "score 0 is nan" in seen["error"]


def test_a_batch_that_two_processes_cannot_share_names_the_nearest_sizes(two_processes: list[dict[str, Any]]) -> None:
    for seen in two_processes:
        assert seen["shares"] == (
            "ConfigError: rollout_batch_size (6) must be a multiple of processes x minibatches (2 x 2); "
            "nearest valid: 4 or 8"
        )


@pytest.mark.slow
def test_accelerate_launch_runs_two_processes_that_write_each_file_once(
    workshop: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
    environment: dict[str, str],
    on_disk: ModuleType,
    root: Path,
) -> None:
    config = tmp_path / "ppo.yaml"
    config.write_text((root / "configs/smoke/ppo.yaml").read_text())
    output = tmp_path / "run"
    rewards = f"[{{kind: function, path: '{workshop}/rewards.py:length'}}]"
    command = [
        sys.executable, "-m", "accelerate.commands.launch",
        "--config_file", str(root / "configs/accelerate/two_processes.yaml"),
        "--main_process_port", str(free_port()), "-m", "rlhf", "ppo", "--config", str(config),
        f"output_dir={output}", f"model.path={workshop}/policy", f"rewards={rewards}",
        "steps=2", "expected_processes=2", "checkpoints.every=1", "num_samples=50", "optimizer.learning_rate=1e-3",
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("2 process(es) on cpu") == 1 and done.stdout.count(f"results: {output}") == 1
    rows = on_disk.metrics(output)
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["val/first_ratio_deviation"] == 0.0 and rows[0]["objective/kl"] == 0.0
    assert rows[0]["val/num_eos_tokens"] == pytest.approx(rows[0]["val/share_ended"] * 16), "16 episodes over both"
    samples = on_disk.rows(output / "samples/step-000001.jsonl")
    assert len(samples) == 8, "the main process writes its own half"
    assert [path.name for path in (output / "checkpoints").iterdir()] == ["step-000001"]
    state = load_file(output / "checkpoints/step-000001/generators.safetensors")
    assert {"rollout_0", "rollout_1", "epochs"} <= state.keys()
    assert not torch.equal(state["rollout_0"], state["rollout_1"]), "each process samples with its own numbers"
    AutoModelForCausalLM.from_pretrained(output / "policy")


def test_the_policy_is_an_ordinary_model_with_its_value_head_beside_it(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    config = tiny.ppo_config(workshop, output_dir=str(tmp_path / "run"), **tiny.separate(workshop))
    policy = train_ppo(config)
    assert policy == tmp_path / "run" / "policy"
    trained = AutoModelForCausalLM.from_pretrained(policy)
    start = AutoModelForCausalLM.from_pretrained(workshop / "policy")
    assert not torch.equal(trained.lm_head.weight, start.lm_head.weight)
    assert AutoTokenizer.from_pretrained(policy).pad_token_id == 0
    head = load_file(policy / "value_head.safetensors")
    assert {name: list(tensor.shape) for name, tensor in head.items()} == {"linear.weight": [1, 32], "linear.bias": [1]}
    assert head["linear.weight"].any()
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "critic").config.num_labels == 1
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert train_ppo(config) == policy, "complete: nothing to do"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


@pytest.fixture(scope="module")
def lora_sft(workshop: Path) -> Path:
    """An adapter directory on the tiny policy, as SFT with LoRA saves it, with an adapter that does something."""
    torch.manual_seed(7)
    base = AutoModelForCausalLM.from_pretrained(workshop / "policy")
    adapted = get_peft_model(
        base, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    )
    adapted.save_pretrained(str(workshop / "lora_sft"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(workshop / "policy" / name, workshop / "lora_sft" / name)
    return workshop / "lora_sft"


@pytest.mark.slow
def test_lora_ppo_from_a_lora_sft_has_the_merged_model_as_reference(
    tiny: ModuleType, workshop: Path, lora_sft: Path, tmp_path: Path
) -> None:
    settings = {"model": {"path": str(lora_sft), "precision": "float32", "lora": {"r": 2, "alpha": 4.0}}}
    merged = AutoPeftModelForCausalLM.from_pretrained(lora_sft).merge_and_unload()
    base = AutoModelForCausalLM.from_pretrained(workshop / "policy")
    made = tiny.parts(tiny.ppo_config(workshop, **settings))
    tiny.stir(made.trainer, 0.1)
    prompt, response = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 9]])
    full = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    said = made.trainer.collector.reference.logprobs(join(prompt, full[0], response, full[1]), 2, 1.0)[0]
    ids = torch.cat([prompt, response], 1)
    expected, without = (
        model(input_ids=ids).logits[0, 2:4].log_softmax(-1).gather(1, response[0, :, None])[:, 0]
        for model in (merged, base)
    )
    torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(said, without, atol=1e-2)
    policy = train_ppo(tiny.ppo_config(workshop, output_dir=str(tmp_path / "run"), **settings))
    exported = AutoPeftModelForCausalLM.from_pretrained(policy)
    with torch.no_grad():
        moved = (exported(input_ids=ids).logits - merged(input_ids=ids).logits).abs().max()
        with exported.disable_adapter():
            torch.testing.assert_close(
                exported(input_ids=ids).logits, merged(input_ids=ids).logits, rtol=1e-4, atol=1e-4
            )
    assert 1e-4 < float(moved) < 1.0, "the adapter holds what PPO learned"


def test_a_function_reward_gets_what_trl_would_give_it(tiny: ModuleType, workshop: Path) -> None:
    rewards = [
        {"kind": "function", "path": f"{workshop}/rewards.py:label", "weight": 2.0},
        {"kind": "function", "path": f"{workshop}/rewards.py:constant", "weight": -1.0},
    ]
    made = tiny.parts(tiny.ppo_config(workshop, rewards=rewards))
    collected = tiny.collected(made)
    function = made.trainer.collector.scorer.rewards[0][0]._function
    assert function.__globals__["seen"] == {
        "prompts": [prompt.raw for prompt in made.prompts],
        "completions": [episode.completion for episode in collected.episodes],
        "label": list(range(8)),
    }
    assert collected.raw_scores == pytest.approx([2.0 * label - 0.1 for label in range(8)])


def test_a_reward_model_reads_prompt_and_response(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, rewards=[{"kind": "model", "path": str(workshop / "reward_model")}]))
    collected = tiny.collected(made)
    model = AutoModelForSequenceClassification.from_pretrained(workshop / "reward_model")
    for episode, score in zip(collected.episodes, collected.raw_scores, strict=True):
        hidden = model.model(input_ids=torch.tensor([[*episode.prompt_ids, *episode.response_ids]])).last_hidden_state
        assert score == pytest.approx(float(model.score(hidden[0, -1])), abs=1e-5)


def edited(directory: Path, target: Path, **changes: Any) -> Path:
    """A copy of a model directory with another config.json."""
    shutil.copytree(directory, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


def refusals(workshop: Path, tmp_path: Path) -> dict[str, tuple[dict[str, Any], str]]:
    short = edited(workshop / "reward_model", tmp_path / "short", max_position_embeddings=8)
    other = edited(workshop / "reward_model", tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"eos_token": "<bos>"}))
    empty = tmp_path / "prompts.jsonl"
    empty.write_text(json.dumps({"prompt": "far too many words for a prompt of at most two tokens"}) + "\n")

    def critic(path: Path) -> dict[str, Any]:
        return {"critic": "separate", "critic_model": {"path": str(path)}}

    return {
        "positions of the policy": ({"sampling__max_new_tokens": 122}, r"exceed the 128 positions of .*policy"),
        "positions of the critic": (critic(short), r"exceed the 8 positions of .*short"),
        "tokenizer of the critic": (critic(other), r"critic_model\.path: .* has another tokenizer"),
        "no prompt left": ({"prompts": {"path": str(empty), "max_length": 2}}, r"(?s)prompts\.jsonl|no (row|prompt)"),
    }


CASES = ("positions of the policy", "positions of the critic", "tokenizer of the critic", "no prompt left")


@pytest.mark.parametrize("case", CASES)
def test_parts_that_do_not_fit_are_refused(tiny: ModuleType, workshop: Path, tmp_path: Path, case: str) -> None:
    changes, message = refusals(workshop, tmp_path)[case]
    with pytest.raises(RlhfError, match=message) as caught:
        tiny.parts(tiny.ppo_config(workshop, **changes))
    assert caught.value.exit_status == (3 if case == "no prompt left" else 2)


def test_one_process_refuses_minibatches_that_do_not_divide(tiny: ModuleType, workshop: Path) -> None:
    with pytest.raises(ValueError, match=r"minibatches \(3\) must divide rollout_batch_size .*nearest valid: 2 or 4"):
        tiny.ppo_config(workshop, minibatches=3)
    one = tiny.ppo_config(workshop).model_copy(update={"rollout_batch_size": 1})
    with pytest.raises(ConfigError, match=r"\(1 x 2\); nearest valid: 2$"):
        tiny.parts(one)
    groups = tiny.ppo_config(workshop, num_samples_per_prompt=4, minibatches=2)
    with pytest.raises(
        ConfigError, match=r"and of processes x num_samples_per_prompt \(1 x 4\); nearest valid: 4 or 8"
    ):
        tiny.parts(groups.model_copy(update={"rollout_batch_size": 6}))
