"""The card beside every saved model: README.md with data, recipe, figures and limits, as the hub and people read it.

The same run writes the same card: it holds no date, no time and no directory of this machine.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from rlhf.config.reading.secrets import redacted
from rlhf.printable import escaped_markdown, one_line, text_of
from rlhf.stage.frame import UNIMPORTANT, Frame
from rlhf.training.storage.run_directory import CARD
from rlhf.training.telemetry.metrics import saved_metrics

LINK = "[rlhf](https://pypi.org/project/rlhf-ppo/)"
MOST_FIGURES = 24
NUM_SAMPLES = 3
LONGEST_SAMPLE = 400
"""Characters of a prompt, and of a response."""
LEFT_OUT = ("step", "seconds", "episode", "epoch", "weight")
"""Metrics that say nothing about the model; what is measured by a clock differs from run to run."""
_KINDS = {
    "sft": (
        "A language model finetuned on demonstrations (SFT)",
        "text-generation",
        "It imitates its demonstrations, with their errors and their style. What they do not show it did not learn.",
    ),
    "reward-model": (
        "A reward model, trained on pairs of a chosen and a rejected response",
        "text-classification",
        "Its score compares responses to one prompt, of the kind of its pairs. It is no measure of truth, and a policy "
        "that is trained on it finds what it overrates. Take the raw score minus `score_mean` of config.json.",
    ),
    "ppo": (
        "A language model trained by PPO on a reward",
        "text-generation",
        "It was trained to please its reward. A higher score is no proof of better answers: compare it with the model "
        "it came from by a judge that training did not use (`rlhf evaluate`), and read its answers.",
    ),
    "critic": (
        "The critic of a PPO run: it expects scores of unfinished responses",
        "text-classification",
        "It knows the responses of its own policy, and is of use to go on with that run alone.",
    ),
}
"""What a model is, the hub's word for it, and its own limits."""
GENERAL = (
    "Nobody has tested it for safety, for facts, or for use in another language or task than that of its data. The "
    "licences of the base model and of the data hold for it too."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the cards of a run's models say."""

    run: Frame
    last: Mapping[str, float]
    """The metrics of the last step; empty where none was done."""
    samples: Path | None = None
    """The directory of PPO's samples."""

    @classmethod
    def of(cls, run: Frame) -> Self:
        """Take what a finished run wrote into its directory."""
        rows = saved_metrics(run.directory.metrics)
        return cls(run=run, last=rows[-1] if rows else {}, samples=run.directory.samples)

    def write(self, directory: Path, kind: str, source: str) -> None:
        """Write the card of a model that was saved into a directory; on one process only.

        Args:
            directory: holds the model.
            kind: sft, reward-model, ppo or critic.
            source: the model from which training started; empty for one that was built in memory.
        """
        is_adapter = (directory / "adapter_config.json").is_file()
        (directory / CARD).write_text(self.text(kind, source, is_adapter=is_adapter), encoding="utf-8")

    def text(self, kind: str, source: str, *, is_adapter: bool = False) -> str:
        """Return the card."""
        title, _, limits = _KINDS[kind]
        given = self.run.config.model_dump(mode="json")
        hidden = sorted({str(Path(path).parent) for path in _absolute(given)}, key=len, reverse=True)
        base = _base(given, source)
        front = yaml.safe_dump(_front(given, kind, source, is_adapter=is_adapter), sort_keys=False)
        data = [f"- {_text(_without(line, hidden))}" for line in self.run.data]
        parts = [
            f"---\n{front}---",
            f"# {title}",
            f"{f'It started from {_text(base)}, and' if base else 'It'} was trained with {LINK}.",
            "## Data",
            "\n".join(data) or "Not recorded.",
            "## Recipe",
            "Settings that are not the defaults:",
            self._recipe(hidden),
            "## Figures",
            *_figures(self.last),
            *(_samples(self.samples) if kind == "ppo" and self.samples is not None else []),
            "## Limits",
            f"{limits} {GENERAL}",
        ]
        return "\n\n".join(parts) + "\n"

    def _recipe(self, hidden: Sequence[str]) -> str:
        """Return the settings as a block of code that none of its lines can end."""
        config = self.run.config.model_dump(mode="json", exclude_defaults=True, exclude=set(UNIMPORTANT))
        text = yaml.safe_dump(redacted(config), sort_keys=False) if config else "none"
        return "\n".join(f"    {line}" for line in _without(text, hidden).splitlines())


def _front(given: Mapping[str, Any], kind: str, source: str, *, is_adapter: bool) -> dict[str, Any]:
    """Return what the hub reads; it refuses names that are none of its own."""
    front: dict[str, Any] = {"library_name": "peft" if is_adapter else "transformers"}
    front["pipeline_tag"] = _KINDS[kind][1]
    if _is_hub_name(name := str(given["model"].get("path") or source)):
        front["base_model"] = name
    sections = [given.get(name) for name in ("data", "prompts", "demonstrations")]
    paths = [str(section["path"]) for section in sections if isinstance(section, Mapping) and section.get("path")]
    if datasets := [path for path in dict.fromkeys(paths) if _is_hub_name(path)]:
        front["datasets"] = datasets
    return {**front, "tags": ["rlhf", kind]}


def _base(given: Mapping[str, Any], source: str) -> str:
    """Return how the card calls the base model: as the config does, of a directory its last two names."""
    name = str(given.get("model", {}).get("path") or source)
    return "/".join(Path(name).parts[-2:]).lstrip("/") if Path(name).exists() else name


def _is_hub_name(name: str) -> bool:
    """Whether a name is one of the hub: `user/name`, and nothing on this disk."""
    user, _, model = name.partition("/")
    return bool(user and model) and "/" not in model and ":" not in name and user[0].isalnum() and not _is_here(name)


def _is_here(name: str) -> bool:
    return Path(name).exists() or Path(name).suffix in (".jsonl", ".json", ".csv", ".parquet", ".txt")


def _absolute(value: object) -> Iterator[str]:
    """Yield the absolute paths in a configuration."""
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _absolute(each)
    elif isinstance(value, list):
        for each in value:
            yield from _absolute(each)
    elif isinstance(value, str) and Path(value).is_absolute():
        yield value


def _without(text: str, parents: Sequence[str]) -> str:
    """Return a text without the directories of this machine."""
    for parent in parents:
        text = text.replace(f"{parent.rstrip('/')}/", "")
    return text


def _figures(last: Mapping[str, float]) -> list[str]:
    names = [name for name, value in last.items() if isinstance(value, int | float) and name not in LEFT_OUT]
    names = [name for name in names if not name.startswith(("profile/", "time/"))][:MOST_FIGURES]
    if not names:
        return ["Not recorded."]
    lines = [f"| {_text(name)} | {last[name]:.4g} |" for name in names]
    best = f" The weights are those of step {int(last['best/step'])}." if "best/step" in last else ""
    return [
        f"Of training, at its last step ({int(last['step'])}); `docs/metrics.md` of rlhf says what they are.{best}",
        "\n".join(["| figure | value |", "|---|---|", *lines]),
    ]


def _samples(directory: Path) -> list[str]:
    """Return what the policy wrote at its last step that was sampled; whatever it wrote stays text."""
    files = sorted(directory.glob("step-*.jsonl"))
    if not files:
        return []
    rows = [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()[:NUM_SAMPLES]]
    cells = [[_text(text_of(row.get(key)), LONGEST_SAMPLE) for key in ("prompt", "response")] for row in rows]
    return [
        "## Samples",
        "Drawn by training at its last step, not chosen.",
        "\n".join(["| prompt | response |", "|---|---|", *(f"| {' | '.join(row)} |" for row in cells)]),
    ]


def _text(text: str, longest: int | None = None) -> str:
    line = one_line(text)
    return escaped_markdown(line if longest is None or len(line) <= longest else f"{line[:longest]} ...")
