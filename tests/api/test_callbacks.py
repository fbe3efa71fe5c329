"""Tests of rlhf.api.callbacks."""

from pathlib import Path
from types import ModuleType

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
