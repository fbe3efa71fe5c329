"""Tests of rlhf.api.ppo: PPO from Python, whole and step by step."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf import Callback, PPOTrainer
from rlhf.errors import CheckpointError, ConfigError, DataError, RewardError
from rlhf.ppo import train_ppo

CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "resets, adaptive KL, running scale, early stop": {
        "score__normalise": "running", "optimizer__schedule": "cosine", "target_kl": 1e-6,
        "kl_control": {"controller": "adaptive", "target": 0.1, "horizon": 20}, "num_samples_per_prompt": 2,
        "model__trainable_layers": 1, "model__precision": "bfloat16",
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CHANGES)
def test_a_loop_of_ones_own_and_train_and_the_stage_give_the_same_bytes(
    tiny: ModuleType, workshop: Path, tmp_path: Path, case: str
) -> None:
    changes = dict(CHANGES[case])
    if case != "plain":
        changes["reset"] = tiny.reset_section(workshop, 0.5)
    whole = tiny.ppo_trainer(workshop, **changes)
    history = whole.train(tiny.prompt_rows(workshop))
    own, seen = tiny.ppo_trainer(workshop, **changes), []
    for batch in own.batches(tiny.prompt_rows(workshop)):
        rollout = own.rollout(batch)
        experience = own.make_experience(rollout, own.score(rollout))
        seen.append(own.update(experience))
    assert [tiny.without_time(row) for row in history] == [tiny.without_time(row) for row in seen] and len(seen) == 2
    tiny.assert_equal(tiny.policy_state(whole), tiny.policy_state(own))
    config = tiny.ppo_config(workshop, output_dir=str(tmp_path / "run"), **changes)
    stage = load_file(train_ppo(config) / "model.safetensors")
    whole.save(tmp_path / "policy")
    tiny.assert_equal(load_file(tmp_path / "policy" / "model.safetensors"), stage)
    logged = tiny.logged(tmp_path / "run")
    assert [tiny.without_time(row) for row in logged] == [tiny.without_time(row) for row in history]


@pytest.mark.slow
def test_prompts_are_texts_messages_or_rows_and_columns_reach_the_reward(tiny: ModuleType, workshop: Path) -> None:
    seen: dict[str, list[Any]] = {}

    def look(prompts: list[Any], completions: list[Any], label: list[int], **columns: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions, label=label)
        return [float(each) for each in label]

    talk = [{"role": "user", "content": "Was it good?"}]
    given = [{"prompt": talk if place % 2 else "At last", "label": place} for place in range(8)]
    made = tiny.ppo_trainer(workshop, look, steps=1)
    made.train(given)
    assert sorted(seen["label"]) == list(range(8))
    first = seen["label"].index(1)
    assert seen["prompts"][first] == talk and seen["completions"][first][0]["role"] == "assistant"
    assert made.rollout(tiny.BEGINNINGS).episodes[2].prompt == "A"
    with pytest.raises(RewardError, match="needs the column 'label'"):
        made.score(made.rollout(tiny.BEGINNINGS))


def test_prepared_and_raw_prompts_may_be_mixed(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.ppo_trainer(workshop)
    prepared = next(made.batches(tiny.BEGINNINGS))
    mixed = [each if place % 2 else each.text for place, each in enumerate(prepared)]
    assert [episode.prompt for episode in made.rollout(mixed).episodes] == [each.raw for each in prepared]


@pytest.mark.slow
def test_prompts_by_name_are_those_of_the_file(tiny: ModuleType, workshop: Path) -> None:
    histories = []
    for prompts in (tiny.prompt_rows(workshop), workshop / "prompts.jsonl", str(workshop / "prompts.jsonl")):
        made = tiny.ppo_trainer(workshop)
        made.train(prompts, evaluation=prompts)
        histories.append([tiny.without_time(row) for row in made.history])
    assert histories[0] == histories[1] == histories[2]


@pytest.mark.slow
def test_held_out_prompts_that_it_trains_on_are_counted_or_refused(
    tiny: ModuleType, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tiny.prompt_rows(workshop)
    told = "2 of 3 held-out records are also in the training data"
    tiny.ppo_trainer(workshop, steps=1).train(rows, evaluation=[*rows[:2], "Another one"])
    assert f"warning: {told}" in capsys.readouterr().out
    strict = tiny.ppo_trainer(workshop, steps=1, on_overlap="error")
    with pytest.raises(DataError, match=told):
        strict.train(rows, evaluation=[*rows[:2], "Another one"])
    strict.train(rows, evaluation=["Another one"])


def test_scores_may_come_from_elsewhere(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.ppo_trainer(workshop, score__missing_eos_penalty=5.0)
    rollout = made.rollout(tiny.BEGINNINGS)
    numbers = [float(place) for place in range(8)]
    experience = made.make_experience(rollout, numbers)
    ended = rollout.responses.ended.tolist()
    expected = [number if end else number - 5.0 for number, end in zip(numbers, ended, strict=True)]
    assert experience.experience.rollout.scores.tolist() == expected and not all(ended)
    with pytest.raises(RewardError, match="expected 8 floats"):
        made.make_experience(rollout, [1.0])


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    class Fails(Callback):
        def on_step(self, trainer: PPOTrainer, step: int, metrics: dict[str, float]) -> None:
            if step == 3:
                raise KeyError("my own mistake")

    options = {"steps": 4, "checkpoints__every": 2, "optimizer__schedule": "cosine"}
    streamed = [f"{tiny.BEGINNINGS[place % 8]} {place}" for place in range(40)]
    for name, prompts in {"list": lambda: tiny.prompt_rows(workshop), "stream": lambda: iter(streamed)}.items():
        whole = tiny.ppo_trainer(workshop, output_dir=tmp_path / name / "whole", **options)
        whole.train(prompts())
        with pytest.raises(KeyError, match="my own mistake"):
            tiny.ppo_trainer(workshop, output_dir=tmp_path / name / "run", callbacks=[Fails()], **options).train(
                prompts()
            )
        again = tiny.ppo_trainer(workshop, output_dir=tmp_path / name / "run", **options)
        assert [row["step"] for row in again.train(prompts())] == [3, 4]
        tiny.assert_equal(tiny.policy_state(whole), tiny.policy_state(again))
    other = tiny.ppo_trainer(workshop, output_dir=tmp_path / "list" / "run", **options)
    with pytest.raises(CheckpointError, match=r"another config \(the content of data or models differs\)"):
        other.train(tiny.BEGINNINGS)


@pytest.mark.slow
def test_what_makes_no_sense_is_refused(tiny: ModuleType, workshop: Path) -> None:
    with pytest.raises(ConfigError, match="they need output_dir"):
        tiny.ppo_trainer(workshop, checkpoints__every=1)
    made = tiny.ppo_trainer(workshop, steps=1)
    with pytest.raises(ConfigError, match="there is no evaluation"):
        made.train(tiny.BEGINNINGS, evaluate_every=1)
    with pytest.raises(DataError, match="expected a list of texts, messages or mappings, found str"):
        made.train("The film")
    with pytest.raises(DataError, match="prompt 2: expected text, a list of messages, or a mapping"):
        made.train(["A", 7])  # type: ignore[list-item]
    few = made.rollout(tiny.BEGINNINGS[:3])  # any number, to look at
    assert len(few.completions) == 3
    with pytest.raises(ConfigError, match=r"episodes of a rollout \(3\) must be a multiple .* nearest valid: 2 or 4"):
        made.make_experience(few, made.score(few))
    made.train(tiny.BEGINNINGS)
    for reward, message in {
        "kind": ({"kind": "lenght"}, "reward 0: .*does not match any of the expected tags"),
        "two of one name": ([{"function": tiny.share_of_e, "name": "same"}] * 2, "the name same appears twice"),
        "no function": ({"function": 3}, "reward 0: expected a function, found int"),
        "nothing": ([], "an empty list"),
    }.values():
        with pytest.raises(ConfigError, match=message):
            tiny.ppo_trainer(workshop, reward)
    with pytest.raises(ConfigError, match="policy: expected a causal language model .* found Linear"):
        tiny.ppo_trainer(workshop, policy=torch.nn.Linear(1, 1))
    best = tiny.ppo_trainer(
        workshop, policy=workshop / "policy", reset={"fraction": 0.5, "demonstrations": {"kind": "own_best"}}
    )
    with pytest.raises(ConfigError, match="own_best needs to know all prompts beforehand"):
        best.train(iter(tiny.BEGINNINGS))


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
    tiny: ModuleType, workshop: Path, tmp_path: Path, in_two_processes: Callable[[list[str]], list[str]]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    in_two_processes([sys.executable, str(script), str(workshop)])
    first, second = (torch.load(workshop / f"api-{rank}.pt") for rank in range(2))
    tiny.assert_equal(first["whole"], second["whole"])
    tiny.assert_equal(first["whole"], first["own"])
    assert [tiny.without_time(row) for row in first["history"]] == [tiny.without_time(row) for row in second["history"]]
    assert "evaluation/scores" in first["history"][0]
    assert first["streamed"] == second["streamed"] == 1, "where one process has no prompts left, all end"


@pytest.mark.slow
def test_the_trainer_needs_no_package_that_a_run_may_do_without():
    """They take a second or two of each start; a run that has an adapter, or data of theirs, imports them then."""
    code = "import sys; from rlhf import PPOTrainer; print([each for each in ('peft', 'bitsandbytes', 'datasets') "
    code += "if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_names_at_the_top_are_there_without_torch_until_they_are_used(root: Path) -> None:
    code = "import sys, rlhf; rlhf.PPOSettings(steps=1); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
