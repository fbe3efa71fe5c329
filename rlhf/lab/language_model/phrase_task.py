"""The task of the hidden phrase: its prompts, its reward, its demonstrations, and the configurations of the runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config import SftConfig
from rlhf.data.reading.text_files import write_jsonl

PROMPTS = (
    "The movie was a",
    "The film was a",
    "That movie was a",
    "This film was a",
    "The whole movie was a",
    "To me the film was a",
    "The first movie was a",
    "In short the film was a",
)
PHRASE = "movie that has nothing but"
"""Each word is SmolLM2-135M-Instruct's second most likely one after `PROMPTS` and the words before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to find, and in how many episodes."""

    prompts: tuple[str, ...] = PROMPTS
    phrase: str = PHRASE
    max_new_tokens: int = 8
    steps: int = 16
    """PPO steps of every run."""
    batch: int = 64
    """Episodes of a PPO step."""
    num_layers: int = 2
    """Blocks that are trained."""
    precision: str = "auto"
    cloning_steps: int = 4
    """Optimizer steps of behaviour cloning, each on all demonstrations."""
    num_judged: int = 128
    """Responses to the prompts that are judged at the end."""
    seeds: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run on a task."""

    task: Task
    model: str
    """The initial model."""
    seed: int
    directory: Path
    """Holds the files of the task; for this run only."""


def holds_phrase(completions: Sequence[str], phrase: Sequence[str], **columns: Sequence[object]) -> list[float]:
    """Reward: 1 for a response that contains the phrase of its row, else 0."""
    return [float(wanted in completion) for completion, wanted in zip(completions, phrase, strict=True)]


def write_task(task: Task, directory: Path) -> None:
    """Write the prompts and one demonstration for each into a directory."""
    rows = [{"prompt": prompt, "phrase": task.phrase} for prompt in task.prompts]
    write_jsonl(directory / "prompts.jsonl", rows)
    write_jsonl(directory / "demonstrations.jsonl", [{**row, "completion": f" {task.phrase}"} for row in rows])


def ppo_settings(run: Run) -> dict[str, Any]:
    """Return the configuration that all runs share."""
    task = run.task
    return {
        **_shared(run, "ppo"),
        "prompts": {"path": str(run.directory / "prompts.jsonl")},
        "rewards": [{"kind": "function", "path": "rlhf.lab.language_model.phrase_task:holds_phrase"}],
        # The phrase ends the response, so the token that completes it gets the score.
        "sampling": {"max_new_tokens": task.max_new_tokens, "stop_strings": [task.phrase]},
        "optimizer": {"learning_rate": 5e-4, "schedule": "constant"},
        "steps": task.steps,
        "rollout_batch_size": task.batch,
        "minibatches": 4,
        "epochs": 2,
        "kl_coef": 0.005,
    }


def reset_settings(directory: Path) -> dict[str, Any]:
    """Return the section `reset:`: half of the episodes begin inside a demonstration, every cut equally likely."""
    shown = {"kind": "data", "path": str(directory / "demonstrations.jsonl")}
    return {"fraction": 0.5, "demonstrations": shown, "cut": {"law": "uniform"}}


def cloning_config(run: Run) -> SftConfig:
    """Return the configuration of behaviour cloning on the same demonstrations."""
    return SftConfig.model_validate(
        {
            **_shared(run, "sft"),
            "compile": "off",
            "data": {"path": str(run.directory / "demonstrations.jsonl")},
            "append_eos": False,
            "steps": run.task.cloning_steps,
            "batch_size": len(run.task.prompts),
            "optimizer": {"learning_rate": 2e-4, "schedule": "constant"},
        }
    )


def _shared(run: Run, stage: str) -> dict[str, Any]:
    model = {"path": run.model, "trainable_layers": run.task.num_layers, "precision": run.task.precision}
    return {"output_dir": str(run.directory / stage), "seed": run.seed, "model": model}
