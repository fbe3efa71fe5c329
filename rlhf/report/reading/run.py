"""A run: the directory of a recipe with one for each stage, or of one stage."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.config.reading.yaml_text import read_mapping
from rlhf.config.run import STAGES
from rlhf.errors import ConfigError
from rlhf.report.reading.files import json_lines, json_object
from rlhf.report.reading.frontier import Frontier, frontiers_in
from rlhf.report.reading.metrics import Metrics, of_rows
from rlhf.report.reading.samples import Answer, read_answers, read_samples
from rlhf.training.storage.run_directory import COMPLETE

PROXY = "reward"
"""The judge that is no independent one: the reward model that training used."""
_TELLING = {"ppo": "kl_coef", "evaluate": "policies", "reward_model": "centring_coef", "sft": "loss_on"}
"""A key that only the configuration of that stage has."""
_CHECKPOINT = re.compile(r"step-(\d+)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage left."""

    kind: str
    """A key of a recipe: sft, reward_model, ppo or evaluate."""
    path: Path
    config: Mapping[str, Any]
    metrics: Metrics
    samples: list[Answer] = field(default_factory=list)
    comparison: Mapping[str, Any] = field(default_factory=dict)
    """comparison.json of an evaluation."""
    answers: Mapping[str, list[Answer]] = field(default_factory=dict)
    """By policy, in the order of the comparison."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    """Machine, versions, data."""
    checkpoints: list[int] = field(default_factory=list)
    """The steps whose checkpoints are still there."""
    is_complete: bool = False

    @property
    def resumed(self) -> list[int]:
        """The steps after which the run was started again."""
        starts = self.circumstances.get("starts", [])
        steps = (
            [start.get("from_step") for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []
        )
        return [step for step in steps if type(step) is int and step > 0]

    @property
    def guarded(self) -> list[tuple[int, str]]:
        """The steps after which a guard stopped the run, and why."""
        stops = self.circumstances.get("stops", [])
        known = [stop for stop in stops if isinstance(stop, dict) and isinstance(stop.get("after_step"), int)]
        return [(stop["after_step"], str(stop.get("reason", ""))) for stop in known]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The stages that a directory holds."""

    name: str
    path: Path
    stages: Mapping[str, Stage]
    frontiers: Mapping[str, Frontier] = field(default_factory=dict)
    """By the place of their files within the directory."""

    @property
    def ppo(self) -> Stage | None:
        """The PPO stage."""
        return self.stages.get("ppo")

    @property
    def evaluation(self) -> Stage | None:
        """The evaluation, if it compared anything."""
        stage = self.stages.get("evaluate")
        return stage if stage is not None and stage.comparison.get("policies") else None


def trained_policies(comparison: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the numbers of the policies by name, without a best of n, which is a baseline and no policy."""
    return {name: numbers for name, numbers in comparison["policies"].items() if numbers.get("kl_bound") is None}


def win_rates_of(numbers: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Return a policy's win rates by judge, independent judges first, the reward model that training used last."""
    found = {judge: said["win_rate"] for judge, said in judges_of(numbers).items() if said.get("win_rate")}
    return {judge: found[judge] for judge in independent_first(found)}


def judges_of(numbers: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return what each judge says of a policy; nothing where the file has another form."""
    judges = numbers.get("judges")
    found = judges if isinstance(judges, Mapping) else {}
    return {str(judge): said for judge, said in found.items() if isinstance(said, Mapping)}


def independent_first(judges: Iterable[str]) -> list[str]:
    """Return the gold judge first, the reward model that training used last, the others in their order between them."""
    return sorted(judges, key=lambda judge: (judge == PROXY, judge != "gold"))


def shown_rate(rate: Mapping[str, float]) -> str:
    """Return a win rate with its interval, as `62.5% [51.0%, 73.0%]`."""
    return f"{rate['mean']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]"


def judge_name(judge: str) -> str:
    """Return how the page calls a judge."""
    return "reward model" if judge == PROXY else f"{judge} judge"


def read_run(path: Path) -> Run:
    """Read the directory of a recipe, or of one stage.

    Raises:
        ConfigError: there is no run.
        CheckpointError: a file cannot be read.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: no such directory; name the output_dir of `rlhf run`, or of one stage")
    stages = {name: read_stage(path / name, name) for name in STAGES if _holds_stage(path / name)}
    if not stages and _holds_stage(path):
        stage = read_stage(path)
        stages = {stage.kind: stage}
    if not stages:
        raise ConfigError(
            f"{path}: no run here: expected metrics.jsonl or comparison.json in it or in {', '.join(STAGES)} below it"
        )
    resolved = path.resolve()
    name = resolved.name or str(resolved)
    return Run(name=name, path=resolved, stages=stages, frontiers=frontiers_in(path))


def read_stage(path: Path, kind: str | None = None) -> Stage:
    """Read the directory of one stage; its configuration tells its kind where none is given.

    Raises:
        CheckpointError: a file cannot be read.
    """
    config = read_mapping(path / "config.yaml") if (path / "config.yaml").exists() else {}
    metrics = of_rows(json_lines(path / "metrics.jsonl"))
    comparison = json_object(path / "comparison.json")
    policies = comparison.get("policies")
    names = list(policies) if isinstance(policies, Mapping) else []
    steps = (_CHECKPOINT.match(place.name) for place in sorted((path / "checkpoints").glob("step-*")))
    return Stage(
        kind=kind or kind_of(config, metrics, comparison),
        path=path,
        config=config,
        metrics=metrics,
        samples=read_samples(path / "samples"),
        comparison=comparison,
        answers={name: read_answers(path / f"{name}.jsonl") for name in names},
        profile=json_object(path / "profile.json"),
        circumstances=json_object(path / "circumstances.json"),
        checkpoints=[int(step.group(1)) for step in steps if step is not None],
        is_complete=(path / COMPLETE).exists(),
    )


def kind_of(config: Mapping[str, Any], metrics: Metrics, comparison: Mapping[str, Any]) -> str:
    """Return the kind of a stage, from its configuration; without one from what it wrote."""
    for kind, key in _TELLING.items():
        if key in config:
            return kind
    if comparison:
        return "evaluate"
    names = set(metrics.names)
    return "ppo" if "objective/scores" in names else "reward_model" if "accuracy" in names else "sft"


def _holds_stage(path: Path) -> bool:
    return any((path / name).is_file() for name in ("metrics.jsonl", "comparison.json"))
