"""Lists the keys of a configuration, as `rlhf VERB --help` and `--help-all` print them."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from enum import Enum

from pydantic import BaseModel

from rlhf.config.reading.keys import Key, keys_of

_WIDTH = 100
"""Columns of the printed page."""


COMMON_KEYS = {
    "sft": (
        "output_dir",
        "model.path",
        "model.lora",
        "model.trainable_layers",
        "data.path",
        "data.max_length",
        "eval_data.path",
        "epochs",
        "steps",
        "batch_size",
        "optimizer.learning_rate",
        "checkpoints.every",
    ),
    "reward_model": (
        "output_dir",
        "model.path",
        "model.lora",
        "model.trainable_layers",
        "data.path",
        "data.max_length",
        "eval_data.path",
        "demonstrations.path",
        "epochs",
        "steps",
        "batch_size",
        "optimizer.learning_rate",
    ),
    "ppo": (
        "output_dir",
        "model.path",
        "model.lora",
        "model.trainable_layers",
        "prompts.path",
        "rewards.N.kind",
        "rewards.N.path",
        "steps",
        "rollout_batch_size",
        "sampling.max_new_tokens",
        "kl_coef",
        "optimizer.learning_rate",
    ),
    "generate": (
        "model",
        "prompts.path",
        "prompts.max_length",
        "prompts.limit",
        "output",
        "samples_per_prompt",
        "decoding.max_new_tokens",
        "decoding.temperature",
        "decoding.stop_strings",
        "decoding.filters",
        "precision",
        "seed",
    ),
    "sample_pairs": (
        "model",
        "prompts.path",
        "prompts.max_length",
        "prompts.limit",
        "output",
        "samples_per_prompt",
        "pairs_per_prompt",
        "decoding.max_new_tokens",
        "decoding.temperature",
        "decoding.stop_strings",
        "precision",
        "seed",
    ),
    "label": (
        "judge",
        "judge.kind",
        "judge.path",
        "pairs.path",
        "pairs.column_map",
        "pairs.limit",
        "output",
        "temperature",
        "seed",
        "tokenizer",
        "precision",
        "batch_rows",
    ),
    "score": (
        "judge",
        "judge.kind",
        "judge.path",
        "data.path",
        "data.column_map",
        "data.limit",
        "data.split",
        "output",
        "column",
        "tokenizer",
        "precision",
        "batch_rows",
    ),
    "evaluate": (
        "output_dir",
        "policies",
        "reference",
        "prompts.path",
        "prompts.max_length",
        "prompts.limit",
        "reward_model",
        "gold.train",
        "gold.heldout",
        "decoding.max_new_tokens",
        "decoding.temperature",
        "seed",
    ),
    "run": (
        "output_dir",
        "seed",
        "sft.model.path",
        "sft.data.path",
        "sft.steps",
        "sft.optimizer.learning_rate",
        "reward_model.data.path",
        "reward_model.steps",
        "ppo.prompts.path",
        "ppo.steps",
        "ppo.kl_coef",
        "evaluate.prompts.path",
    ),
}
"""The twelve keys of each schema that people change most, as `--help` shows them."""


def describe(model: type[BaseModel], *, only: Sequence[str] | None = None) -> str:
    """List the keys of a schema with type, range, default, and meaning with the unit.

    Args:
        model: the schema.
        only: paths of the keys to list, in this order; None lists all.

    Returns:
        Two or more lines for each key: `ppo.kl_coef: number >= 0 (default 0.05)`, then the meaning, indented.
    """
    keys = {key.path: key for key in keys_of(model)}
    return "\n".join(_entry(keys[path], keys) for path in (keys if only is None else only))


def _entry(key: Key, keys: Mapping[str, Key]) -> str:
    line = f"{key.path}: {key.type_name}{_state(key, keys)}"
    if not key.description:
        return line
    meaning = textwrap.fill(key.description, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return f"{line}\n{meaning}"


def _state(key: Key, keys: Mapping[str, Key]) -> str:
    if key.required:
        left_out = _nearest_optional(key.path, keys)
        return f" (required if {left_out} is given)" if left_out else " (required)"
    if isinstance(key.default, BaseModel):
        return ""
    return f" (default {_value(key.default)})"


def _nearest_optional(path: str, keys: Mapping[str, Key]) -> str | None:
    """Return the innermost section around a key that may be left out, if there is one."""
    while path := path.rpartition(".")[0]:
        if path in keys and keys[path].is_section and not keys[path].required:
            return path
    return None


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Enum):
        return _value(value.value)
    return json.dumps(value, default=str)
