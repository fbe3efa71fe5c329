"""Tests of rlhf.ppo.api: PPO from Python, whole and step by step."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlhf import Callback, PPOSettings, PPOTrainer
from rlhf.errors import CheckpointError, ConfigError, DataError, RewardError
from rlhf.ppo import train_ppo
from rlhf.training.metrics import read_metrics

ROOT = Path(__file__).parents[2]
BEGINNINGS = ["The film", "At last", "A", "So", "It was", "I", "From the start", "All in all"]


def share_of_e(completions: list[str], **columns: Any) -> list[float]:
    return [text.count("e") / max(len(text), 1) for text in completions]


def settings(lab: ModuleType, workshop: Path, **changes: Any) -> PPOSettings:
    """The settings of the laboratory's config, without its paths."""
    given = lab.ppo_config(workshop, **changes).model_dump(exclude={"output_dir", "rewards"})
    for section, paths in {"model": ("path", "random_init", "trust_remote_code"), "prompts": ("path", "split")}.items():
        given[section] = {name: value for name, value in given[section].items() if name not in paths}
    for name in ("column_map", "limit"):
        given["prompts"].pop(name)
    return PPOSettings.model_validate(given)


def trainer(lab: ModuleType, workshop: Path, reward: Any = share_of_e, **more: Any) -> PPOTrainer:
    options = {name: more.pop(name) for name in ("output_dir", "callbacks") if name in more}
    policy, reference = more.pop("policy", str(workshop / "policy")), more.pop("reference", None)
    return PPOTrainer(policy, reference, reward, None, settings(lab, workshop, **more), **options)


def rows(workshop: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workshop / "prompts.jsonl").read_text().splitlines()]


def weights(made: PPOTrainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in made.ppo.policy.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_time(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in ("seconds", "step")}


CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "resets, adaptive KL, running scale, early stop": {
        "score__normalise": "running", "optimizer__schedule": "cosine", "target_kl": 1e-6,
        "kl_control": {"controller": "adaptive", "target": 0.1, "horizon": 20}, "num_samples_per_prompt": 2,
        "model__trainable_layers": 1, "model__precision": "bfloat16",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_a_loop_of_ones_own_and_train_and_the_stage_give_the_same_bytes(
    lab: ModuleType, workshop: Path, tmp_path: Path, case: str
) -> None:
    changes = dict(CHANGES[case])
    if case != "plain":
        changes["reset"] = lab.reset_section(workshop, 0.5)
    whole = trainer(lab, workshop, **changes)
    history = whole.train(rows(workshop))
    own, seen = trainer(lab, workshop, **changes), []
    for batch in own.batches(rows(workshop)):
        rollout = own.rollout(batch)
        experience = own.make_experience(rollout, own.score(rollout))
        seen.append(own.update(experience))
    assert [without_time(row) for row in history] == [without_time(row) for row in seen] and len(seen) == 2
    assert_equal(weights(whole), weights(own))
    config = lab.ppo_config(workshop, output_dir=str(tmp_path / "run"), **changes)
    stage = load_file(train_ppo(config) / "model.safetensors")
    whole.save(tmp_path / "policy")
    assert_equal(load_file(tmp_path / "policy" / "model.safetensors"), stage)
    logged = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [without_time(row) for row in logged] == [without_time(row) for row in history]


def test_prompts_are_texts_messages_or_rows_and_columns_reach_the_reward(lab: ModuleType, workshop: Path) -> None:
    seen: dict[str, list[Any]] = {}

    def look(prompts: list[Any], completions: list[Any], label: list[int], **columns: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions, label=label)
        return [float(each) for each in label]

    talk = [{"role": "user", "content": "Was it good?"}]
    given = [{"prompt": talk if place % 2 else "At last", "label": place} for place in range(8)]
    made = trainer(lab, workshop, look, steps=1)
    made.train(given)
    assert sorted(seen["label"]) == list(range(8))
    first = seen["label"].index(1)
    assert seen["prompts"][first] == talk and seen["completions"][first][0]["role"] == "assistant"
    assert made.rollout(BEGINNINGS).episodes[2].prompt == "A"
    with pytest.raises(RewardError, match="needs the column 'label'"):
        made.score(made.rollout(BEGINNINGS))


def test_a_generator_is_asked_for_no_more_than_each_step_needs_and_its_end_ends_the_run(
    lab: ModuleType, workshop: Path
) -> None:
    taken: list[int] = []
    had: list[int] = []

    def stream() -> Iterator[str]:
        for place in range(20):
            taken.append(place)
            yield BEGINNINGS[place % 8]

    class Look(Callback):
        def on_step(self, trainer: PPOTrainer, step: int, metrics: dict[str, float]) -> None:
            had.append(len(taken))

    made = trainer(lab, workshop, steps=9, callbacks=[Look()])
    history = made.train(stream())
    assert had == [8, 16] and [row["step"] for row in history] == [1, 2], "the last four are no whole batch"


def test_what_is_too_long_in_a_stream_is_passed_over(lab: ModuleType, workshop: Path) -> None:
    made = trainer(lab, workshop, steps=1, prompts={"path": "-", "max_length": 3})
    batch = next(made.batches(text for text in ["A", "So it was and so it is and so on"] * 8))
    assert [prompt.text for prompt in batch] == ["A"] * 8
    with pytest.raises(DataError, match=r"rollout: 2 of 4 prompts are longer than 3"):
        made.rollout(["A", "So it was and so it is and so on"] * 2)


class Spied:
    """A reward with a life, as a class."""

    closed = 0

    def __call__(self, completions: list[str], **columns: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    def close(self) -> None:
        Spied.closed += 1


def test_rewards_are_functions_classes_classifiers_and_sections_together(lab: ModuleType, workshop: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    classifier = AutoModelForSequenceClassification.from_pretrained(workshop / "reward_model")
    Spied.closed = 0
    rewards = [
        share_of_e, Spied, classifier, {"model": str(workshop / "reward_model"), "name": "same", "weight": 2.0},
        {"kind": "length", "at_most": 3, "weight": 0.1}, {"function": lambda completions: [1.0] * len(completions)},
    ]  # fmt: skip
    with trainer(lab, workshop, rewards) as made:
        scored = made.score(made.rollout(BEGINNINGS))
    assert Spied.closed == 1
    means = {name.split("/")[1]: value for name, value in scored.metrics.items() if name.endswith("/mean")}
    assert set(means) == {"share_of_e", "Spied", "model", "same", "length", "lambda"}
    assert means["same"] == means["model"], "a classifier is what lies in its directory"
    weights = {"share_of_e": 1.0, "Spied": 1.0, "model": 1.0, "same": 2.0, "length": 0.1, "lambda": 1.0}
    total = sum(weight * means[name] for name, weight in weights.items())
    assert sum(scored.raw) / 8 == pytest.approx(total, rel=1e-6)


def test_a_classifier_with_two_labels_reads_text_with_its_own_tokenizer(lab: ModuleType, workshop: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = AutoConfig.from_pretrained(workshop / "reward_model")
    config.num_labels, config.id2label, config.label2id = 2, {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    torch.manual_seed(1)
    classifier = AutoModelForSequenceClassification.from_config(config)
    tokenizer = AutoTokenizer.from_pretrained(workshop / "policy")
    given = {"model": classifier, "tokenizer": tokenizer, "label": "good", "activation": "softmax"}
    made = trainer(lab, workshop, given)
    rollout = made.rollout(BEGINNINGS)
    scores = made.score(rollout).scores
    ids = tokenizer(rollout.episodes[3].prompt + rollout.completions[3], return_tensors="pt")
    expected = classifier(**ids).logits.softmax(-1)[0, 1]
    assert scores[3] == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ConfigError, match=r"names no label; the model has \['bad', 'good'\]"):
        trainer(lab, workshop, {"model": classifier, "tokenizer": tokenizer})


def test_scores_may_come_from_elsewhere(lab: ModuleType, workshop: Path) -> None:
    made = trainer(lab, workshop, score__missing_eos_penalty=5.0)
    rollout = made.rollout(BEGINNINGS)
    numbers = [float(place) for place in range(8)]
    experience = made.make_experience(rollout, numbers)
    ended = rollout.responses.ended.tolist()
    expected = [number if end else number - 5.0 for number, end in zip(numbers, ended, strict=True)]
    assert experience.experience.rollout.scores.tolist() == expected and not all(ended)
    with pytest.raises(RewardError, match="expected 8 floats"):
        made.make_experience(rollout, [1.0])


def test_a_given_policy_is_trained_in_place_and_equals_one_that_was_named(lab: ModuleType, workshop: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    before = model.lm_head.weight.detach().clone()
    given, named = trainer(lab, workshop, policy=model), trainer(lab, workshop)
    for made in (given, named):
        made.train(rows(workshop))
    assert given.ppo.policy.lm is model and not torch.equal(model.lm_head.weight, before)
    assert_equal(weights(given), weights(named))


def test_a_policy_in_bfloat16_is_trained_in_float32(lab: ModuleType, workshop: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.bfloat16)
    rounded = model.get_input_embeddings().weight.float()
    made = trainer(lab, workshop, policy=model, model__precision="bfloat16")
    masters = made.ppo.optimizer.weights.masters
    assert {master.dtype for master in masters.values()} == {torch.float32}
    assert torch.equal(masters["lm.model.embed_tokens.weight"], rounded)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16


def test_an_adapter_is_its_own_reference_when_it_is_switched_off(
    lab: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    torch.manual_seed(0)
    policy = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    made = trainer(lab, workshop, policy=policy)
    history = made.train(rows(workshop))
    assert history[0]["objective/kl"] == 0.0 and history[1]["objective/kl"] != 0.0
    assert made.ppo.collector.reference.model is made.ppo.policy.lm
    made.save(tmp_path / "saved")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "saved")
    saved = {name: tensor for name, tensor in loaded.state_dict().items() if "lora_B" in name}
    assert saved and all(float(tensor.abs().sum()) > 0 for tensor in saved.values())


def test_another_reference_is_what_the_kl_is_measured_to(lab: ModuleType, workshop: Path) -> None:
    torch.manual_seed(5)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(workshop / "policy")
    other = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for tuning in ({}, {"model__trainable_layers": 1}, {"model__lora": {"r": 2}}):
        made = trainer(lab, workshop, reference=other, **tuning)
        rollout = made.rollout(BEGINNINGS)
        seen = made.make_experience(rollout, made.score(rollout)).experience.rollout
        row = int(seen.response_mask.sum(1).argmax())
        prompt, response = seen.prompt_ids[row][seen.prompt_mask[row]], seen.response_ids[row][seen.response_mask[row]]
        logits = other(torch.cat([prompt, response])[None]).logits[0].log_softmax(-1)
        places = torch.arange(len(response)) + len(prompt) - 1
        expected = logits[places, response]
        torch.testing.assert_close(seen.ref_logprobs[row][seen.response_mask[row]], expected, rtol=1e-4, atol=1e-4)
    policy = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    with pytest.raises(ConfigError, match="reference: it is the policy itself"):
        trainer(lab, workshop, policy=policy, reference=policy)


class Heard(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.saves: list[str] = []
        self.evaluations: list[tuple[int, dict[str, float]]] = []

    def on_step(self, trainer: PPOTrainer, step: int, metrics: dict[str, float]) -> None:
        self.steps.append(step)

    def on_save(self, trainer: PPOTrainer, path: Path) -> None:
        assert path.is_dir()
        self.saves.append(path.name)

    def on_evaluate(self, trainer: PPOTrainer, step: int, metrics: dict[str, float]) -> None:
        self.evaluations.append((step, metrics))


def test_callbacks_hear_of_steps_saves_and_evaluations(lab: ModuleType, workshop: Path, tmp_path: Path) -> None:
    heard = Heard()
    made = trainer(
        lab, workshop, steps=4, checkpoints__every=3, output_dir=tmp_path / "run", callbacks=[heard],
        score__normalise="running", rewards=[{"kind": "length", "normalise": "running", "at_most": 2}],
    )  # fmt: skip
    history = made.train(rows(workshop), evaluation=BEGINNINGS[:3], evaluate_every=2)
    assert heard.steps == [1, 2, 3, 4] and heard.saves == ["step-000003", "policy"]
    assert [step for step, _ in heard.evaluations] == [2, 4]
    assert set(heard.evaluations[0][1]) == {
        "evaluation/scores", "evaluation/kl", "evaluation/share_ended", "evaluation/response_length"
    }  # fmt: skip
    assert history[1]["evaluation/kl"] != 0.0 and "evaluation/kl" not in history[0]
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == [{**row, "step": int(row["step"])} for row in history]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "policy") is not None


def test_an_evaluation_leaves_no_trace_in_the_training(lab: ModuleType, workshop: Path) -> None:
    reward = {"kind": "length", "normalise": "running", "at_most": 2}
    plain, watched = (trainer(lab, workshop, reward) for _ in range(2))
    before = watched.evaluate(BEGINNINGS)
    assert before["evaluation/kl"] == 0.0 and before == watched.evaluate(BEGINNINGS), "the same random numbers"
    plain.train(rows(workshop))
    history = watched.train(rows(workshop), evaluation=lambda own: {"length": own.evaluate(["A"])["evaluation/kl"]})
    assert "length" in history[-1]
    assert_equal(weights(plain), weights(watched))


def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    lab: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    class Fails(Callback):
        def on_step(self, trainer: PPOTrainer, step: int, metrics: dict[str, float]) -> None:
            if step == 3:
                raise KeyError("my own mistake")

    options = {"steps": 4, "checkpoints__every": 2, "optimizer__schedule": "cosine"}
    streamed = [f"{BEGINNINGS[place % 8]} {place}" for place in range(40)]
    for name, prompts in {"list": lambda: rows(workshop), "stream": lambda: iter(streamed)}.items():
        whole = trainer(lab, workshop, output_dir=tmp_path / name / "whole", **options)
        whole.train(prompts())
        with pytest.raises(KeyError, match="my own mistake"):
            trainer(lab, workshop, output_dir=tmp_path / name / "run", callbacks=[Fails()], **options).train(prompts())
        again = trainer(lab, workshop, output_dir=tmp_path / name / "run", **options)
        assert [row["step"] for row in again.train(prompts())] == [3, 4]
        assert_equal(weights(whole), weights(again))
    with pytest.raises(CheckpointError, match="holds the complete result of this very run"):
        trainer(lab, workshop, output_dir=tmp_path / "list" / "run", **options).train(rows(workshop))
    other = trainer(lab, workshop, output_dir=tmp_path / "list" / "run", **options)
    with pytest.raises(CheckpointError, match="holds the result of a run with another config"):
        other.train(BEGINNINGS)


def test_what_makes_no_sense_is_refused(lab: ModuleType, workshop: Path) -> None:
    with pytest.raises(ConfigError, match="they need output_dir"):
        trainer(lab, workshop, checkpoints__every=1)
    made = trainer(lab, workshop, steps=1)
    with pytest.raises(ConfigError, match="there is no evaluation"):
        made.train(BEGINNINGS, evaluate_every=1)
    with pytest.raises(DataError, match="expected several, found one str"):
        made.train("The film")
    with pytest.raises(DataError, match="prompt 2: expected text, a list of messages, or a mapping"):
        made.train(["A", 7])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"episodes of a rollout \(3\) must be a multiple .* nearest valid: 2 or 4"):
        made.rollout(BEGINNINGS[:3])
    made.train(BEGINNINGS)
    with pytest.raises(ConfigError, match="has done 1 steps already"):
        made.train(BEGINNINGS)
    for reward, message in {
        "kind": ({"kind": "lenght"}, "reward 0: .*does not match any of the expected tags"),
        "two of one name": ([{"function": share_of_e, "name": "same"}] * 2, "the name same stands twice"),
        "no function": ({"function": 3}, "reward 0: expected a function, found int"),
        "nothing": ([], "an empty list"),
    }.values():
        with pytest.raises(ConfigError, match=message):
            trainer(lab, workshop, reward)
    with pytest.raises(ConfigError, match="policy: expected a causal language model .* found Linear"):
        trainer(lab, workshop, policy=torch.nn.Linear(1, 1))
    best = trainer(
        lab, workshop, policy=workshop / "policy", reset={"fraction": 0.5, "demonstrations": {"kind": "own_best"}}
    )
    with pytest.raises(ConfigError, match="own_best needs to know all prompts beforehand"):
        best.train(iter(BEGINNINGS))


def test_a_reward_that_raises_is_named_with_its_line(lab: ModuleType, workshop: Path) -> None:
    def wrong(completions: list[str]) -> list[float]:
        return [1 / 0 for _ in completions]

    with pytest.raises(RewardError, match=r"reward 'wrong' raised ZeroDivisionError.*test_api\.py, line \d+") as caught:
        trainer(lab, workshop, wrong).train(BEGINNINGS)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


SCRIPT = """
import sys
from pathlib import Path
import torch
from rlhf import PPOSettings, PPOTrainer
workshop = Path(sys.argv[1])
settings = PPOSettings(
    steps=2, rollout_batch_size=8, epochs=1, microbatch_tokens=24, model={"precision": "float32"},
    sampling={"max_new_tokens": 5}, optimizer={"learning_rate": 1e-3}, expected_processes=2,
)
prompts = ["The film", "At last", "A", "So", "It was", "I", "From the start", "All in all"]
def length(completions, **columns): return [float(len(text)) for text in completions]
def make(**more): return PPOTrainer(str(workshop / "policy"), None, length, None, settings, **more)
whole = make(output_dir=workshop / "two")
history = whole.train(prompts, evaluation=prompts[:3], evaluate_every=1)
own = make()
for batch in own.batches(prompts):
    rollout = own.rollout(batch)
    assert len(rollout.episodes) == 4
    own.update(own.make_experience(rollout, own.score(rollout)))
streamed = make()
rank = streamed.processes.rank
ends_early = prompts * 2 if rank == 0 else prompts
streamed.train(iter(ends_early))
torch.save({
    "whole": whole.ppo.policy.state_dict(), "own": own.ppo.policy.state_dict(),
    "history": history, "streamed": streamed.ppo.num_steps,
}, workshop / f"api-{rank}.pt")
"""


def test_two_processes_run_the_same_script_and_stay_in_step(
    workshop: Path, tmp_path: Path, in_two_processes: Callable[[list[str]], str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    in_two_processes([sys.executable, str(script), str(workshop)])
    first, second = (torch.load(workshop / f"api-{rank}.pt") for rank in range(2))
    assert_equal(first["whole"], second["whole"])
    assert_equal(first["whole"], first["own"])
    assert [without_time(row) for row in first["history"]] == [without_time(row) for row in second["history"]]
    assert "evaluation/scores" in first["history"][0]
    assert first["streamed"] == second["streamed"] == 1, "where one process has no prompts left, all end"


def test_the_names_at_the_top_are_there_without_torch_until_they_are_used() -> None:
    code = "import sys, rlhf; rlhf.PPOSettings(steps=1); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
