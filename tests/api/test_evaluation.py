"""Tests of rlhf.api.evaluation: the comparison of `rlhf evaluate`, from Python."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf import EvaluateSettings, evaluate
from rlhf.config import EvaluateConfig
from rlhf.errors import CheckpointError, ConfigError, DataError
from rlhf.evaluation import evaluate as stage

DATA = Path(__file__).parents[2] / "data"
PROMPTS = DATA / "heldout_prompts.jsonl"
SETTINGS: dict[str, Any] = {"decoding": {"max_new_tokens": 6}, "precision": "float32", "num_side_by_side": 2}


@pytest.fixture(scope="module")
def other(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another policy of the same tokenizer."""
    directory = tmp_path_factory.mktemp("other") / "policy"
    shutil.copytree(workshop / "policy", directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The self-written labels in two halves that share no text."""
    directory = tmp_path_factory.mktemp("labelled")
    lines = list(
        {json.loads(line)["text"]: line for line in (DATA / "labelled_texts.jsonl").read_text().splitlines()}.values()
    )
    for name, part in (("train", lines[::2]), ("heldout", lines[1::2])):
        (directory / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    return {name: str(directory / f"{name}.jsonl") for name in ("train", "heldout")}


def files(directory: Path) -> dict[str, bytes]:
    names = ("comparison.json", "summary.md", "sft.jsonl", "ppo.jsonl")
    return {name: (directory / name).read_bytes() for name in names}


@pytest.mark.slow
def test_stage_and_function_leave_the_same_bytes_of_names_and_of_objects(
    workshop: Path, other: Path, gold: dict[str, str], tmp_path: Path
) -> None:
    paths = {"sft": workshop / "policy", "ppo": other}
    stage(
        EvaluateConfig.model_validate(
            {
                **SETTINGS, "output_dir": str(tmp_path / "stage"), "gold": gold, "prompts": {"path": str(PROMPTS)},
                "policies": {name: str(path) for name, path in paths.items()},
                "reward_model": str(workshop / "reward_model"),
            }
        )
    )  # fmt: skip
    expected = files(tmp_path / "stage")
    settings = EvaluateSettings(**SETTINGS, gold=gold)
    objects = {name: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for name, path in paths.items()}
    judge = AutoModelForSequenceClassification.from_pretrained(workshop / "reward_model", dtype=torch.float32)
    rows = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    found = evaluate(paths, str(PROMPTS), None, settings, reward_model=workshop / "reward_model",
                     output_dir=tmp_path / "names")  # fmt: skip
    again = evaluate(objects, rows, None, settings, reward_model=judge, output_dir=tmp_path / "objects")
    assert files(tmp_path / "names") == expected == files(tmp_path / "objects")
    assert found == again and found.to_json().encode() == expected["comparison.json"]
    assert found.policies["ppo"].kl.mean > 0.0 == found.policies["sft"].kl.mean
    judges = found.policies["ppo"].judges
    assert judges["gold"].win_rate is not None and judges["reward"].score is not None


def test_models_that_were_given_stay_as_they_are_and_nothing_is_written(
    workshop: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32).train()
    found = evaluate({"a": model, "b": other, "c": model}, ["The film", "At last"], config=EvaluateSettings(**SETTINGS))
    assert found.num_prompts == 2 and found.policies["a"].judges == {}
    assert found.policies["a"].kl == found.policies["c"].kl and found.policies["c"].kl.mean == 0.0
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_judges_are_functions_classifiers_and_sections_by_name(workshop: Path, other: Path, tmp_path: Path) -> None:
    def vowels(completions: list[str], **columns: Any) -> list[float]:
        return [float(sum(letter in "aeiou" for letter in text)) for text in completions]

    classifier = AutoModelForSequenceClassification.from_pretrained(workshop / "reward_model", dtype=torch.float32)
    judges = {"vowels": vowels, "brief": {"kind": "length", "at_most": 2}, "model": classifier.train()}
    settings = EvaluateSettings(**SETTINGS)
    given = {"reward_model": workshop / "reward_model", "output_dir": tmp_path / "run"}
    found = evaluate({"a": workshop / "policy", "b": other}, PROMPTS, config=settings, judges=judges, **given)
    said = found.policies["b"].judges
    assert list(said) == ["vowels", "brief", "model", "reward"] and classifier.training
    assert said["model"].score == said["reward"].score and said["vowels"].win_rate is not None
    rows = [json.loads(line) for line in (tmp_path / "run" / "b.jsonl").read_text().splitlines()]
    assert all(row["scores"]["vowels"] == vowels([row["response"]])[0] for row in rows)
    assert all(row["scores"]["brief"] == -max(row["tokens"] - 2, 0) for row in rows)
    one = evaluate({"a": workshop / "policy"}, PROMPTS, config=EvaluateSettings(
        **SETTINGS, judges={"brief": {"kind": "length", "at_most": 2}}))  # fmt: skip
    assert list(one.policies["a"].judges) == ["brief"]
    with pytest.raises(CheckpointError, match="another config"):  # another function under the same name
        evaluate(
            {"a": workshop / "policy", "b": other}, PROMPTS, config=settings, judges={**judges, "vowels": len}, **given
        )


@pytest.mark.slow
def test_an_adapter_answers_as_its_merged_model_does(workshop: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapter = get_peft_model(model, lora)
    adapter.save_pretrained(str(tmp_path / "adapter"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(workshop / "policy" / name, tmp_path / "adapter" / name)
    settings = EvaluateSettings(**SETTINGS)
    given, named = (
        evaluate({"adapter": policy}, PROMPTS, config=settings, reference=workshop / "policy")
        for policy in (adapter, tmp_path / "adapter")
    )
    assert given == named and given.policies["adapter"].kl.mean != 0.0
    assert any("lora_A" in name for name, _ in adapter.named_parameters())


@pytest.mark.sweep
@pytest.mark.parametrize("tuning", [{}, {"lora": {"r": 2}}], ids=["full", "lora"])
def test_the_model_of_a_trainer_answers_as_what_the_trainer_saved(
    tiny: ModuleType, workshop: Path, tmp_path: Path, tuning: dict[str, Any]
) -> None:
    made = tiny.ppo_trainer(workshop, model__lora=tuning.get("lora"))
    made.train(tiny.prompt_rows(workshop))
    made.save(tmp_path / "saved")
    in_memory, saved = (
        evaluate({"ppo": policy}, PROMPTS, config=EvaluateSettings(**SETTINGS), reference=workshop / "policy")
        for policy in (made.model, tmp_path / "saved")
    )
    assert in_memory == saved and saved.policies["ppo"].kl.mean != 0.0


def test_what_cannot_be_compared_is_one_clear_line(workshop: Path, tmp_path: Path) -> None:
    policy, config = {"a": workshop / "policy"}, EvaluateSettings(**SETTINGS)
    two = AutoModelForSequenceClassification.from_pretrained(workshop / "policy", num_labels=2, dtype=torch.float32)
    for policies, more, message in (
        ([workshop / "policy"], {}, r'policies: expected a mapping such as \{"sft": model, .* found list'),
        ({}, {}, "found an empty one"),
        ({"a/b": "x"}, {}, "a name is also a file name"),
        ({"a": 3}, {}, r"policies\.a: expected a causal language model .* found int"),
        (policy, {"reference": 3}, "reference: expected a causal language model"),
        (policy, {"reward_model": 3}, "reward_model: expected a sequence classifier .* found int"),
        (policy, {"reward_model": two}, "a reward model needs 1 label, found 2"),
        (policy, {"judges": [len]}, "judges: expected a mapping .* found list"),
        (policy, {"judges": {"a": 3}}, "judges.a: expected a function, found int"),
        (policy, {"judges": {"gold": len}}, "judges: the name gold is taken"),
        (policy, {"judges": {"a": {"kind": "openai", "url": "http://h"}}}, "judges.a: model: Field required"),
        (policy, {"config": {"seed": 1}}, "config: expected EvaluateSettings, found dict"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(policies, PROMPTS, **{"config": config, **more})
    for prompts, message in (
        ([], "prompts: 0 rows"),
        ([3], "prompt 1: expected text"),
        ("no/such.jsonl", "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            evaluate(policy, prompts, config=config)
    evaluate(policy, ["A film"], config=config, output_dir=tmp_path / "run")
    evaluate(policy, ["A film"], config=config, output_dir=tmp_path / "run")  # the same again
    with pytest.raises(CheckpointError, match="holds the result of a run with another config"):
        evaluate(policy, ["At last"], config=config, output_dir=tmp_path / "run")


SCRIPT = """
import sys
from rlhf import EvaluateSettings, evaluate, generate
policy, prompts = sys.argv[1], ["The film", "At last"]
found = evaluate({"a": policy}, prompts, config=EvaluateSettings(decoding={"max_new_tokens": 4}))
print("FOUND", found.num_prompts, found.policies["a"].length.mean, len(generate(policy, prompts, max_new_tokens=4)))
"""


def test_every_process_gets_the_comparison(
    workshop: Path, tmp_path: Path, in_two_processes: Callable[[list[str]], list[str]]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    outputs = in_two_processes([sys.executable, str(tmp_path / "script.py"), str(workshop / "policy")])
    found = [[line for line in output.splitlines() if line.startswith("FOUND")] for output in outputs]
    assert found[0] == found[1] and len(found[0]) == 1 and found[0][0].endswith(" 2")
    assert "".join(outputs).count("a: answering") == 1
