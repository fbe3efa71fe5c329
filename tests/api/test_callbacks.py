"""Tests of rlhf.api.callbacks."""

from pathlib import Path
from types import ModuleType

import pytest
from transformers import AutoModelForCausalLM

from rlhf import Callback, PPOTrainer


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


@pytest.mark.slow
def test_callbacks_hear_of_steps_saves_and_evaluations(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    heard = Heard()
    made = tiny.ppo_trainer(
        workshop, steps=4, checkpoints__every=3, output_dir=tmp_path / "run", callbacks=[heard],
        score__normalise="running", rewards=[{"kind": "length", "normalise": "running", "at_most": 2}],
    )  # fmt: skip
    history = made.train(tiny.prompt_rows(workshop), evaluation=tiny.BEGINNINGS[:3], evaluate_every=2)
    assert heard.steps == [1, 2, 3, 4] and heard.saves == ["step-000003", "policy"]
    assert [step for step, _ in heard.evaluations] == [2, 4]
    assert set(heard.evaluations[0][1]) == {
        "evaluation/scores", "evaluation/kl", "evaluation/share_ended", "evaluation/response_length"
    }  # fmt: skip
    assert history[1]["evaluation/kl"] != 0.0 and "evaluation/kl" not in history[0]
    assert tiny.logged(tmp_path / "run") == [{**row, "step": int(row["step"])} for row in history]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "policy") is not None


class Satisfied(Callback):
    def __init__(self, how: str) -> None:
        self.how = how

    def on_step(self, trainer: PPOTrainer, step: int, metrics: dict[str, float]) -> bool | None:
        if step == 2 and self.how == "stop()":
            trainer.stop()
        return step == 2 and self.how == "returned"


@pytest.mark.sweep
@pytest.mark.parametrize("how", ["stop()", "returned", "from the evaluation"])
def test_a_callback_ends_training_and_keeps_history_and_policy(
    tiny: ModuleType, workshop: Path, tmp_path: Path, how: str
) -> None:
    class OnEvaluation(Callback):
        def on_evaluate(self, trainer: PPOTrainer, step: int, metrics: dict[str, float]) -> None:
            trainer.stop()

    callback = OnEvaluation() if how == "from the evaluation" else Satisfied(how)
    made = tiny.ppo_trainer(workshop, steps=5, output_dir=tmp_path / "run", callbacks=[callback])
    history = made.train(tiny.prompt_rows(workshop), evaluation=tiny.BEGINNINGS[:3], evaluate_every=2)
    assert [row["step"] for row in history] == [1.0, 2.0] and "evaluation/kl" in history[1]
    assert history == made.history and (tmp_path / "run" / "complete.json").is_file()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "policy") is not None
