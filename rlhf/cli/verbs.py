"""The verbs that take a configuration: whose schema it is, and which function runs it."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from rlhf.config.reading.loader import load_config
from rlhf.config.schema_files import SCHEMAS
from rlhf.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """A verb that takes a configuration; its code is imported only when it runs, so help and errors are fast."""

    config: str
    """Name of its schema: a key of SCHEMAS, and the usual name of its YAML file."""
    module: str
    """Module of the function that runs it."""
    function: str
    """Name of that function; it takes the configuration and returns the path of its results, or None."""
    summary: str
    """One line for the help."""
    is_profiled: bool = False
    """Whether it takes `--profile`."""

    @property
    def model(self) -> type[BaseModel]:
        """The schema."""
        return SCHEMAS[self.config]

    def run(self, path: Path | None, overrides: Sequence[str], **options: bool) -> object:
        """Check the configuration, then run the stage."""
        config = load_config(self.model, path, overrides)
        return getattr(importlib.import_module(self.module), self.function)(config, **options)


STAGES = {
    "sft": Stage("sft", "rlhf.sft", "train_sft", "supervised finetuning on demonstrations (behaviour cloning)", True),
    "reward-model": Stage(
        "reward_model", "rlhf.reward_model", "train_reward_model", "train a reward model on preference pairs", True
    ),
    "ppo": Stage("ppo", "rlhf.ppo", "train_ppo", "optimise a policy with PPO against rewards", True),
    "doctor": Stage("ppo", "rlhf.doctor", "examine", "examine a PPO run before it starts; writes nothing"),
    "generate": Stage("generate", "rlhf.evaluation.generate", "generate", "answer prompts, as JSONL"),
    "chat": Stage("generate", "rlhf.evaluation.chat", "chat", "talk to a model in the terminal"),
    "sample-pairs": Stage(
        "sample_pairs", "rlhf.preferences.pairs", "sample_pairs", "answer prompts several times, as pairs for label"
    ),
    "label": Stage("label", "rlhf.preferences.labels", "label_pairs", "let a judge turn pairs into preferences"),
    "score": Stage("score", "rlhf.preferences.scores", "add_scores", "add a judge's scores to prompts and completions"),
    "evaluate": Stage("evaluate", "rlhf.evaluation", "evaluate", "compare policies on the same held-out prompts"),
    "run": Stage("run", "rlhf.pipeline", "run", "run a whole recipe, skipping the stages that are complete", True),
}
"""The verbs that take a configuration."""


def verb_of(path: Path) -> str:
    """Return the verb whose configuration a file holds, by the file's name: `ppo.yaml`, `reward_model.yaml`.

    Raises:
        ConfigError: the name is not that of a verb.
    """
    verb = path.stem.replace("_", "-")
    if verb not in STAGES:
        raise ConfigError(f"config error: {path}: the file's name is no verb: add --verb, one of {', '.join(STAGES)}")
    return verb
