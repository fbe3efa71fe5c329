"""SFT and the reward model, each as a YAML file's stage and as a trainer in Python, on the workshop's tiny policy."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf import RewardSettings, RewardTrainer, SFTSettings, SFTTrainer
from rlhf.config import RewardModelConfig, SftConfig
from rlhf.reward_model import train_reward_model
from rlhf.sft import train_sft

DATA = Path(__file__).parents[2] / "data"
COMMON: dict[str, Any] = {
    "steps": 4, "batch_size": 16, "microbatch_tokens": 256, "data": {"max_length": 64},
    "optimizer": {"learning_rate": 1e-3, "warmup_fraction": 0.0},
}  # fmt: skip


@dataclass(frozen=True)
class Both:
    """One of the two stages, in both ways."""

    name: str
    trainer: Callable[..., Any]
    settings: type[Any]
    config: type[Any]
    stage: Callable[..., Path]
    result: str
    training: Path
    heldout: Path

    def make(self, policy: object, tokenizer: object = None, **more: Any) -> Any:
        """A trainer in the settings of `COMMON`: all of `more` but `output_dir` and `callbacks` are settings."""
        options = {name: more.pop(name) for name in ("output_dir", "callbacks") if name in more}
        return self.trainer(policy, tokenizer, self.settings(**given(more)), **options)

    def run(self, policy: Path, output_dir: Path, **more: Any) -> Path:
        """What the stage leaves of the same settings."""
        values = given(more)
        data = {**values.pop("data"), "path": str(self.training)}
        model = {**values.pop("model"), "path": str(policy)}
        heldout = {"path": str(self.heldout), "max_length": 64}
        shown = {"demonstrations": {"path": str(DATA / "sft_eval.jsonl"), "max_length": 64}}
        config = {**values, "data": data, "model": model, "eval_data": heldout, "eval_every": 2}
        if self.name == "reward_model":
            config |= shown
        return self.stage(self.config.model_validate({**config, "output_dir": str(output_dir)}))

    def train(self, made: Any, *, by_name: bool = False) -> list[dict[str, float]]:
        """Train on the same data as `run`, given as objects or by name."""
        read = str if by_name else rows
        shown = {"demonstrations": read(DATA / "sft_eval.jsonl")} if self.name == "reward_model" else {}
        return made.train(read(self.training), evaluation=read(self.heldout), evaluate_every=2, **shown)


def given(changes: dict[str, Any]) -> dict[str, Any]:
    """`COMMON` with changes."""
    precision = {"model": {"precision": "float32", **changes.pop("model", {})}}
    return {**COMMON, **precision, **changes}


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


SFT = Both(
    "sft", SFTTrainer, SFTSettings, SftConfig, train_sft, "policy", DATA / "sft_train.jsonl", DATA / "sft_eval.jsonl"
)
REWARD = Both(
    "reward_model", RewardTrainer, RewardSettings, RewardModelConfig, train_reward_model, "reward_model",
    DATA / "preference_train.jsonl", DATA / "preference_eval.jsonl",
)  # fmt: skip


@pytest.fixture(params=[SFT, REWARD], ids=lambda both: both.name)
def both(request: pytest.FixtureRequest) -> Both:
    """Each of the two."""
    return request.param


@pytest.fixture
def sft() -> Both:
    """SFT."""
    return SFT


@pytest.fixture
def reward_model() -> Both:
    """The reward model."""
    return REWARD


@pytest.fixture
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """Reads JSONL."""
    return rows
