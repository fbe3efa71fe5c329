"""Tests of rlhf.api.supervised, sft and reward_model: stage and trainer are one, in memory and on the disk."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf import Callback, SFTTrainer, Trainer
from rlhf.errors import CheckpointError, ConfigError

TUNING: dict[str, dict[str, Any]] = {
    "full": {"checkpoints": {"every": 3}},
    "lora with dropout": {"model": {"lora": {"r": 2, "dropout": 0.3}}},
    "last blocks in bfloat16": {"model": {"trainable_layers": 1, "precision": "bfloat16"}},
}
SPECIFIC = {"sft": {"loss_on": "all"}, "reward_model": {"unfinished_fraction": 0.3, "centring_coef": 0.01}}


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.sweep
@pytest.mark.parametrize("by_name", [True, False], ids=["names", "objects"])
@pytest.mark.parametrize("tuning", TUNING)
def test_stage_and_trainer_leave_the_same_bytes(
    tiny: ModuleType, both: Any, workshop: Path, tmp_path: Path, tuning: str, by_name: bool
) -> None:
    settings = {**TUNING[tuning], **SPECIFIC[both.name]}
    saved = both.run(workshop / "policy", tmp_path / "stage", **settings)
    policy = workshop / "policy"
    start = str(policy) if by_name else AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    tokenizer = None if by_name else AutoTokenizer.from_pretrained(policy)
    made = both.make(start, tokenizer, output_dir=tmp_path / "python", **settings)
    history = both.train(made, by_name=by_name)
    theirs, ours = contents(saved), contents(tmp_path / "python" / both.result)
    assert theirs.keys() == ours.keys()
    # The card names the files that the configuration names, and each directory lists the size of its card.
    assert {name for name in theirs if theirs[name] != ours[name]} <= {"README.md", "rlhf_files.json"}
    rows = [tiny.logged(tmp_path / place) for place in ("stage", "python")]
    assert [tiny.without_time(row) for row in rows[0]] == [tiny.without_time(row) for row in rows[1]]
    assert rows[1] == [{**row, "step": int(row["step"])} for row in history] and "eval/loss" in history[1]
    made.save(tmp_path / "again")
    again = contents(tmp_path / "again")
    for files in (again, ours):  # each lists its own files, and only `save` writes training.json
        assert json.loads(files.pop("rlhf_files.json"))["files"].keys() == files.keys()
    assert json.loads(again.pop("training.json"))["steps"] == 4
    assert again == ours


@pytest.mark.sweep
def test_the_best_step_is_the_result_of_stage_and_trainer_alike(both: Any, workshop: Path, tmp_path: Path) -> None:
    best = {"metric": "eval/loss", "greater_is_better": True, "load_at_end": True}  # the loss falls: step 2 has more
    saved = both.run(workshop / "policy", tmp_path / "stage", best=best)
    made = both.make(workshop / "policy", output_dir=tmp_path / "python", best=best)
    history = both.train(made)
    assert (
        history[3]["eval/loss"] < history[1]["eval/loss"] == history[3]["best/value"] and history[3]["best/step"] == 2
    )
    theirs, ours = contents(saved), contents(tmp_path / "python" / both.result)
    assert theirs.keys() == ours.keys() and {name for name in theirs if theirs[name] != ours[name]} <= {
        "README.md",
        "rlhf_files.json",
    }
    masters = load_file(tmp_path / "stage/checkpoints/step-000002/masters.safetensors")
    weights = dict(made.model.named_parameters())
    assert weights.keys() == masters.keys() and all(torch.equal(weights[name], masters[name]) for name in weights)
    with pytest.raises(ConfigError, match="best: an evaluation at the end alone leaves nothing to choose from"):
        made.train(str(both.training), evaluation=str(both.heldout))


@pytest.mark.sweep
def test_without_output_dir_nothing_is_written_and_the_numbers_are_the_same(
    tiny: ModuleType, both: Any, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, whole = both.make(workshop / "policy"), both.make(workshop / "policy", output_dir=tmp_path / "whole")
    histories = [both.train(each) for each in (made, whole)]
    assert [tiny.without_time(row) for row in histories[0]] == [tiny.without_time(row) for row in histories[1]]
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert made.history is histories[0] and [row["step"] for row in made.history] == [1, 2, 3, 4]


class StopsAfter(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        if step == self.step:
            raise KeyError("my own mistake")


@pytest.mark.sweep
def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(both: Any, workshop: Path, tmp_path: Path) -> None:
    settings = {"checkpoints": {"every": 2}, "model": {"lora": {"r": 2, "dropout": 0.3}}}
    both.train(both.make(workshop / "policy", output_dir=tmp_path / "whole", **settings))
    with pytest.raises(KeyError, match="my own mistake"):
        both.train(both.make(workshop / "policy", output_dir=tmp_path / "run", callbacks=[StopsAfter(3)], **settings))
    again = both.make(workshop / "policy", output_dir=tmp_path / "run", **settings)
    assert [row["step"] for row in both.train(again)] == [3, 4]
    assert contents(tmp_path / "whole" / both.result) == contents(tmp_path / "run" / both.result)
    with pytest.raises(CheckpointError, match="holds the result of a run with another config"):
        both.make(workshop / "policy", output_dir=tmp_path / "run", **settings).train(str(both.heldout))


class Heard(Callback):
    def __init__(self) -> None:
        self.heard: list[tuple[str, object]] = []

    def on_step(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        self.heard.append(("step", step))
        assert trainer.history[-1]["loss"] == metrics["loss"]

    def on_save(self, trainer: Trainer, path: Path) -> None:
        self.heard.append(("save", path.name))
        assert path.is_dir()

    def on_evaluate(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        self.heard.append(("evaluate", step))


@pytest.mark.sweep
def test_callbacks_hear_of_steps_saves_and_evaluations(both: Any, workshop: Path, tmp_path: Path) -> None:
    heard = Heard()
    made = both.make(workshop / "policy", output_dir=tmp_path, callbacks=[heard], checkpoints={"every": 3})
    both.train(made)
    expected: list[tuple[str, object]] = [("step", 1), ("step", 2), ("evaluate", 2), ("step", 3)]
    expected += [("save", "step-000003"), ("step", 4), ("evaluate", 4), ("save", both.result)]
    assert heard.heard == expected


class Evaluates(Callback):
    def __init__(self, rows: Path) -> None:
        self.rows = rows
        self.found: list[dict[str, float]] = []

    def on_step(self, trainer: Any, step: int, metrics: dict[str, float]) -> None:
        self.found.append(trainer.evaluate(self.rows))


@pytest.mark.sweep
def test_an_evaluation_is_rows_or_a_function_and_changes_nothing(
    tiny: ModuleType, both: Any, workshop: Path, read_rows: Callable[[Path], list[dict[str, Any]]]
) -> None:
    settings = {"model": {"lora": {"r": 2, "dropout": 0.3}}}
    evaluates = Evaluates(both.heldout)
    plain = both.make(workshop / "policy", **settings)
    watched = both.make(workshop / "policy", callbacks=[evaluates], **settings)
    rows = read_rows(both.training)
    before = watched.evaluate(read_rows(both.heldout))
    plain.train(rows)
    history = watched.train(rows, evaluation=lambda trainer: trainer.evaluate(str(both.heldout)), evaluate_every=1)
    assert [row["loss"] for row in plain.history] == [row["loss"] for row in history]
    assert "eval/loss" not in plain.history[-1] and history[-1]["eval/loss"] != before["eval/loss"]
    # Right after a step dropout is on, and it is off in an evaluation.
    assert [{name: row[name] for name in before} for row in history] == evaluates.found


def test_save_overwrites_what_a_trainer_saved_and_nothing_else(both: Any, workshop: Path, tmp_path: Path) -> None:
    made = both.make(workshop / "policy")
    for _ in range(2):
        made.save(tmp_path / "mine")
    kind = AutoModelForCausalLM if both.name == "sft" else AutoModelForSequenceClassification
    assert kind.from_pretrained(tmp_path / "mine") is not None
    made.save(tmp_path / "empty" / "deep")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.bin").write_text("precious")
    for taken in (tmp_path / "other", tmp_path / "other" / "weights.bin", workshop / "policy"):
        kind = both.result.replace("_", " ")
        with pytest.raises(CheckpointError, match=f"holds something other than a {kind} saved"):
            made.save(taken)
    assert (tmp_path / "other" / "weights.bin").read_text() == "precious"


def test_a_policy_that_was_given_is_trained_in_place(sft: Any, workshop: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    before = model.lm_head.weight.detach().clone()
    made = sft.make(model)
    sft.train(made)
    assert made.model is model and not torch.equal(model.lm_head.weight, before)


@pytest.mark.slow
def test_a_language_model_that_was_given_stays_as_it_is_and_its_copy_gets_a_head(
    reward_model: Any, workshop: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.bfloat16)
    before = model.model.embed_tokens.weight.detach().clone()
    made = reward_model.make(model)
    reward_model.train(made)
    assert torch.equal(model.model.embed_tokens.weight, before) and model.dtype == torch.bfloat16
    assert model.config.architectures == ["LlamaForCausalLM"] and model.config.num_labels != 1
    assert made.model is not model and made.model.config.num_labels == 1


@pytest.mark.slow
def test_a_classifier_that_was_given_keeps_its_head(reward_model: Any, workshop: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(workshop / "reward_model", dtype=torch.float32)
    head = model.score.weight.detach().clone()
    made = reward_model.make(model)
    assert made.model is model and torch.equal(model.score.weight, head)
    reward_model.train(made)
    assert not torch.equal(model.score.weight, head) and model.config.score_mean != 0.0


@pytest.mark.slow
def test_an_adapter_that_was_given_is_trained_and_saved(sft: Any, workshop: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    adapter = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    made = sft.make(adapter)
    sft.train(made)
    made.save(tmp_path / "adapter")
    assert made.model is adapter and (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_models_that_cannot_be_trained_are_refused(both: Any, workshop: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    with pytest.raises(ConfigError, match="expected a causal language model .* found Linear"):
        both.make(torch.nn.Linear(1, 1), str(workshop / "policy"))
    with pytest.raises(ConfigError, match="none of its weights requires gradients"):
        both.make(model.requires_grad_(False))
    with pytest.raises(ConfigError, match="tokenizer: expected a tokenizer of transformers or a name, found int"):
        both.make(workshop / "policy", 3)
    adapter = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    with pytest.raises(ConfigError, match="it still has the layers of an adapter"):
        both.make(model)
    if both.name == "reward_model":
        with pytest.raises(ConfigError, match="found PeftModelForCausalLM - merge an adapter first"):
            both.make(adapter)


def test_a_classifier_of_two_labels_is_no_reward_model(reward_model: Any, workshop: Path) -> None:
    two = AutoModelForSequenceClassification.from_pretrained(workshop / "policy", num_labels=2, dtype=torch.float32)
    with pytest.raises(ConfigError, match="a reward model needs 1 label, found 2"):
        reward_model.make(two)


@pytest.mark.sweep
def test_rows_that_do_not_fit_the_model_are_refused_before_the_first_step(both: Any, workshop: Path) -> None:
    long = {"prompt": "A", "completion": " no" * 400, "chosen": " no" * 400, "rejected": " yes"}
    made = both.make(workshop / "policy", data={"max_length": 5000})
    with pytest.raises(
        ConfigError, match=r"data: the longest sequence has \d+ tokens, but the model has 128 positions"
    ):
        made.train([{name: long[name] for name in columns(both)}])
    both.train(made)


def test_demonstrations_are_looked_at_before_training(reward_model: Any, workshop: Path) -> None:
    made = reward_model.make(workshop / "policy")
    with pytest.raises(Exception, match="demonstrations:row 1: needed columns"):
        made.train(str(reward_model.training), demonstrations=[{"chosen": "a", "rejected": "b"}])
    assert made.history == []


def columns(both: Any) -> list[str]:
    return ["prompt", "completion"] if both.name == "sft" else ["prompt", "chosen", "rejected"]


SCRIPT = """
import sys
from pathlib import Path
import torch
from rlhf import RewardSettings, RewardTrainer, SFTSettings, SFTTrainer
workshop, data = Path(sys.argv[1]), Path(sys.argv[2])
shared = dict(steps=3, batch_size=16, microbatch_tokens=64, data={"max_length": 64}, expected_processes=2,
              model={"precision": "float32"}, checkpoints={"every": 2})
found = {}
for name, trainer, settings, more in (
    ("sft", SFTTrainer, SFTSettings, {}),
    ("preference", RewardTrainer, RewardSettings, {"demonstrations": str(data / "sft_eval.jsonl")}),
):
    made = trainer(workshop / "policy", config=settings(**shared), output_dir=workshop / f"two-{name}")
    history = made.train(data / f"{name}_train.jsonl", evaluation=data / f"{name}_eval.jsonl", evaluate_every=2, **more)
    made.save(workshop / f"two-{name}-saved")
    mean = getattr(made.model.config, "score_mean", 0.0)
    found[name] = {"state": made.model.state_dict(), "history": history, "mean": mean}
torch.save(found, workshop / f"supervised-{made.processes.rank}.pt")
"""


def test_two_processes_run_the_same_script_and_stay_in_step(
    tiny: ModuleType, sft: Any, workshop: Path, tmp_path: Path, in_two_processes: Callable[[list[str]], list[str]]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    in_two_processes([sys.executable, str(script), str(workshop), str(sft.training.parent)])
    first, second = (torch.load(workshop / f"supervised-{rank}.pt") for rank in range(2))
    for name in ("sft", "preference"):
        tiny.assert_equal(first[name]["state"], second[name]["state"])
        one, other = ([tiny.without_time(row) for row in found[name]["history"]] for found in (first, second))
        assert one == other and len(one) == 3 and "eval/loss" in one[1]
        assert first[name]["mean"] == second[name]["mean"]
        assert (workshop / f"two-{name}" / "complete.json").is_file()


def test_the_type_of_a_trainer_is_what_callbacks_are_told(workshop: Path) -> None:
    def told(trainer: Trainer) -> list[dict[str, float]]:
        return trainer.history

    from rlhf import SFTSettings

    assert told(SFTTrainer(workshop / "policy", config=SFTSettings(steps=1))) == []
