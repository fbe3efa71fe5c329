"""Settings: what differs from the defaults, and what differs between runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel

from rlhf.config import EvaluateConfig, PPOConfig, RewardModelConfig, SftConfig
from rlhf.config.reading.keys import INDEX, Key, keys_of
from rlhf.config.run import STAGES
from rlhf.report.reading.run import Run, Stage

MODELS: dict[str, type[BaseModel]] = {
    "sft": SftConfig,
    "reward_model": RewardModelConfig,
    "ppo": PPOConfig,
    "evaluate": EvaluateConfig,
}
_LAST_KEY = re.compile(r"(^|\.)(seed|output_dir)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key of a configuration."""

    key: str
    value: str
    default: str
    """`-` where it has none."""
    meaning: str


def set_by_user(stage: Stage) -> list[Setting]:
    """Return the settings of a stage that are not the defaults, in the order of the schema."""
    known = {key.path: key for key in keys_of(MODELS[stage.kind])}
    found = []
    for path, value in flat(stage.config).items():
        key = known.get(_general(path))
        if key is not None and not _is_default(value, key):
            default = "-" if key.required else shown(key.default)
            found.append(Setting(key=path, value=shown(value), default=default, meaning=key.description))
        elif key is None:
            found.append(Setting(key=path, value=shown(value), default="-", meaning=""))
    return found


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return each key in which runs differ, with its value in every run; a run's own directory does not count."""
    tables = [_all_of(run) for run in runs]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [(key, [shown(table[key]) if key in table else "-" for table in tables]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def is_one_recipe(runs: Sequence[Run]) -> bool:
    """Whether several runs differ in their seeds alone."""
    return len(runs) > 1 and all(_LAST_KEY.search(key) for key, _ in differences(runs))


def flat(value: object, prefix: str = "") -> dict[str, object]:
    """Name nested values by their path, items of a list by their index: `rewards.0.weight`."""
    if isinstance(value, Mapping) and value:
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = list(enumerate(value))
    else:
        return {prefix: value} if prefix else {}
    found: dict[str, object] = {}
    for key, item in items:
        found |= flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def shown(value: object) -> str:
    """Return a value as YAML writes it, on one line."""
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    if isinstance(plain, tuple):
        plain = list(plain)
    return (
        yaml.safe_dump(plain, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )


def _all_of(run: Run) -> dict[str, object]:
    own = {str(run.path): "{run_dir}"}
    for stage in run.stages.values():
        given = stage.config.get("output_dir")
        if isinstance(given, str):
            own[given.rpartition("/")[0] if len(run.stages) > 1 or stage.path.name in STAGES else given] = "{run_dir}"
    table = {}
    for kind, stage in run.stages.items():
        for path, value in flat(stage.config).items():
            if path != "output_dir":
                table[f"{kind}.{path}"] = _replaced(value, own)
    return table


def _replaced(value: object, own: Mapping[str, str]) -> object:
    if isinstance(value, str):
        for place, name in own.items():
            value = value.replace(place, name) if place else value
    return value


def _general(path: str) -> str:
    return ".".join(INDEX if part.isdigit() else part for part in path.split("."))


def _is_default(value: object, key: Key) -> bool:
    if key.required or (key.is_section and value not in ({}, None)):
        return False
    return shown(value) == shown(key.default)
