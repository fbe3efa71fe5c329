"""Tests of rlhf.api.ppo: what is refused, before anything is lost."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf import Callback
from rlhf.errors import CheckpointError, ConfigError, DataError


def _model(workshop: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)


def _lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")


def test_a_directory_with_other_files_is_not_overwritten(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    made = tiny.ppo_trainer(workshop)
    (tmp_path / "models" / "other").mkdir(parents=True)
    (tmp_path / "models" / "other" / "weights.bin").write_text("precious")
    with pytest.raises(CheckpointError, match="holds something other than a policy"):
        made.save(tmp_path / "models")
    assert (tmp_path / "models" / "other" / "weights.bin").read_text() == "precious"
    for _ in range(2):  # what was saved here may be replaced
        made.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "value_head.safetensors").is_file()


def test_a_saved_critic_leaves_its_neighbours_alone(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    critic = {"critic": "separate", "critic_model": {"path": str(workshop / "reward_model")}}
    made = tiny.ppo_trainer(workshop, **critic)
    (tmp_path / "critic").mkdir()
    (tmp_path / "critic" / "mine.txt").write_text("precious")
    made.save(tmp_path / "policy")
    assert (tmp_path / "critic" / "mine.txt").is_file() and (tmp_path / "policy-critic" / "config.json").is_file()


def test_no_update_goes_beyond_the_schedule(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.ppo_trainer(workshop, steps=1)
    for limit in (True, False):
        rollout = made.rollout(tiny.BEGINNINGS)
        experience = made.make_experience(rollout, made.score(rollout))
        if limit:
            made.update(experience)
    with pytest.raises(ConfigError, match="all 1 steps of the config are done"):
        made.update(experience)


def test_after_a_refusal_everything_is_looked_at_again(tiny: ModuleType, workshop: Path) -> None:
    reset = {"fraction": 0.5, "demonstrations": {"kind": "own_best"}}
    made = tiny.ppo_trainer(workshop, reset=reset)
    with pytest.raises(ConfigError, match="own_best"):
        made.rollout(tiny.BEGINNINGS)
    made.train(tiny.prompt_rows(workshop))
    assert made.ppo.resets is not None
    long = ["A " * 500]
    for _ in range(2):
        with pytest.raises(ConfigError, match="positions"):
            tiny.ppo_trainer(workshop, prompts__max_length=2000).train(long)


def test_a_reference_that_shares_weights_with_the_policy_is_refused(tiny: ModuleType, workshop: Path) -> None:
    base = _model(workshop)
    with pytest.raises(ConfigError, match="shares weights with the policy"):
        tiny.ppo_trainer(workshop, policy=get_peft_model(base, _lora()), reference=base)


def test_a_policy_without_anything_to_train_is_refused(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none of its weights requires gradients"):
        tiny.ppo_trainer(workshop, policy=_model(workshop).requires_grad_(False))
    get_peft_model(_model(workshop), _lora()).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is_trainable=True"):
        tiny.ppo_trainer(workshop, policy=PeftModel.from_pretrained(_model(workshop), tmp_path))


def test_a_model_that_an_earlier_trainer_gave_an_adapter_is_refused(tiny: ModuleType, workshop: Path) -> None:
    model = _model(workshop)
    tiny.ppo_trainer(workshop, policy=model, model__lora={"r": 2})
    with pytest.raises(ConfigError, match="it still has the layers of an adapter"):
        tiny.ppo_trainer(workshop, policy=model)


def test_a_stream_without_a_whole_batch_completes_nothing(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the prompts ran out before the first step had a full batch"):
        tiny.ppo_trainer(workshop, output_dir=tmp_path / "run").train(iter(["A", "B"]))
    assert not (tmp_path / "run" / "complete.json").exists()


def test_a_stream_that_ends_early_is_evaluated_and_logged(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    made = tiny.ppo_trainer(workshop, steps=5, logging__every=4, output_dir=tmp_path / "run")
    history = made.train(iter(["A", "B"] * 8), evaluation=lambda trainer: {"steps_seen": trainer.ppo.num_steps})
    assert len(history) == 2 and history[-1]["steps_seen"] == 2.0
    assert [row["step"] for row in tiny.logged(tmp_path / "run")] == [2]


def test_batches_begin_with_what_the_iterator_has_next(tiny: ModuleType, workshop: Path) -> None:
    made, stream = tiny.ppo_trainer(workshop, steps=3), iter([f"A {place}" for place in range(16)])
    for batch in made.batches(stream):
        rollout = made.rollout(batch)
        made.update(made.make_experience(rollout, made.score(rollout)))
        break
    assert [prompt.raw for prompt in next(iter(made.batches(stream)))] == [f"A {place}" for place in range(8, 16)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evaluation": lambda trainer: None, "evaluate_every": 1}, "expected a mapping of names to numbers"),
        ({"evaluation": ["A"], "evaluate_every": 0}, "expected at least 1"),
        ({"evaluation": "A film"}, "found str"),
    ],
)
def test_an_evaluation_that_cannot_work_is_one_line(
    tiny: ModuleType, workshop: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        tiny.ppo_trainer(workshop, steps=1).train(tiny.BEGINNINGS, **arguments)


@pytest.mark.parametrize("given", [None, 3, "The film", {"prompt": "The film"}])
def test_prompts_that_are_no_list_are_one_line(tiny: ModuleType, workshop: Path, given: Any) -> None:
    made = tiny.ppo_trainer(workshop)
    for call in (made.train, made.evaluate, made.rollout):
        with pytest.raises(DataError, match="prompts: expected a list of texts"):
            call(given)


@pytest.mark.parametrize(("given", "message"), [([Callback], "the class Callback"), ([3], "int"), (None, "NoneType")])
def test_callbacks_of_another_kind_are_refused_before_the_first_step(
    tiny: ModuleType, workshop: Path, given: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.ppo_trainer(workshop, callbacks=given)


def test_a_config_in_another_place_is_named(tiny: ModuleType, workshop: Path) -> None:
    from rlhf import PPOTrainer

    with pytest.raises(ConfigError, match="the order is policy, reference, reward, tokenizer, config"):
        PPOTrainer(str(workshop / "policy"), None, len, None, {"steps": 1})  # type: ignore[arg-type]


def test_an_adapter_on_a_classifier_is_no_function(tiny: ModuleType, workshop: Path) -> None:
    classifier = AutoModelForSequenceClassification.from_pretrained(workshop / "reward_model", dtype=torch.float32)
    adapted = get_peft_model(classifier, LoraConfig(r=2, target_modules="all-linear", task_type="SEQ_CLS"))
    with pytest.raises(ConfigError, match="merge_and_unload"):
        tiny.ppo_trainer(workshop, adapted)
