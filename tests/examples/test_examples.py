"""Each script of examples/ runs to its end on a tiny random model, and prints what it promises."""

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, root: Path, tiny: ModuleType) -> Path:
    """A tiny policy, a reward model, and a classifier with two labels."""
    directory = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(root / "data/tiny_model", initializer_range=0.2)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory / "policy")
    config.num_labels = 1
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory / "preferences")
    config.num_labels, config.id2label = 2, {0: "NEGATIVE", 1: "POSITIVE"}
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory / "sentiment")
    tiny.give_tokenizer(*(directory / name for name in ("policy", "preferences", "sentiment")))
    return directory


@pytest.fixture
def run(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path):
    """Run a script as its user would, for two steps, and return the lines about them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))  # a server is a process of its own

    def ran(name: str, *arguments: str) -> list[str]:
        argv = [name, "--model", str(models / "policy"), "--steps", "2", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(root / "examples" / name), run_name="__main__")
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]

    return ran


@pytest.mark.slow
def test_a_function_is_the_reward_and_the_policy_is_saved(run, tmp_path: Path) -> None:
    lines = run("function_reward.py")
    assert len(lines) == 2 and lines[0].endswith("KL 0.00 nats")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "runs/function_reward/policy") is not None


@pytest.mark.slow
def test_two_models_and_a_rule_are_logged_apart(run, models: Path) -> None:
    paths = ["--preferences", str(models / "preferences"), "--sentiment", str(models / "sentiment")]
    lines = run("two_models_and_a_rule.py", *paths)
    assert len(lines) == 2 and all(f"{name} " in lines[1] for name in ("preferences", "sentiment", "length"))


@pytest.mark.slow
def test_a_server_is_asked_and_stopped(run) -> None:
    pytest.importorskip("uvicorn")
    assert [line.split(":")[0] for line in run("remote_scorer.py")] == ["step 1", "step 2"]


@pytest.mark.slow
def test_a_loop_of_ones_own(run) -> None:
    lines = run("own_loop.py")
    assert len(lines) == 2 and "score" in lines[1]


@pytest.mark.slow
def test_resets_make_a_sparse_reward_visible(run) -> None:
    lines = run("sparse_reward_with_resets.py")
    assert len(lines) == 2 and "from prompts 0.00" in lines[0]


@pytest.mark.slow
def test_the_tutorials_task_with_a_classifier_of_words_and_with_one_of_transformers(
    run, models: Path, tmp_path: Path, on_disk: ModuleType
) -> None:
    pytest.importorskip("sklearn")
    rows = [{"text": f"The film was {word} and I say so", "label": label} for word, label in (("good", 1), ("bad", 0))]
    on_disk.write_rows(tmp_path / "reviews.jsonl", rows)
    for more in ([], ["--classifier", str(models / "sentiment")]):
        lines = run("gpt2_sentiment_task.py", "--reviews", str(tmp_path / "reviews.jsonl"), *more)
        assert len(lines) == 2 and "logit" in lines[0]


def test_demonstrations_are_cloned(run, tmp_path: Path) -> None:
    lines = run("sft.py")
    assert len(lines) == 2 and "held out" in lines[1] and "held out" not in lines[0]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "runs/sft/policy") is not None


def test_pairs_make_a_reward_model(run, tmp_path: Path) -> None:
    lines = run("reward_model.py")
    assert len(lines) == 2 and re.search(r"loss \d\.\d\d nats per pair, accuracy \d+%$", lines[0])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "runs/reward_model/reward_model")
    assert model.config.num_labels == 1 and model.config.score_mean != 0.0


@pytest.mark.slow
def test_the_whole_path_and_a_second_call_that_trains_nothing(run, tmp_path: Path, root: Path) -> None:
    arguments = ["--data", str(root / "data"), "--layers", "1"]
    assert len(run("whole_path.py", *arguments)) == 2
    assert (tmp_path / "runs/whole_path/ppo/policy/value_head.safetensors").is_file()
    assert run("whole_path.py", *arguments) == []


def test_every_example_is_run_here(root: Path) -> None:
    text = Path(__file__).read_text()
    assert [path.name for path in sorted((root / "examples").glob("*.py")) if f'run("{path.name}"' not in text] == []
