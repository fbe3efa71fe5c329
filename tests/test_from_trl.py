"""docs/from-trl.md has every name of TRL's PPO, and what it names on our side exists."""

import inspect
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from rlhf import PPOSettings, PPOTrainer
from rlhf.config.reading.keys import keys_of

ROOT = Path(__file__).parents[1]
DOC = ROOT / "docs/from-trl.md"
TRL: dict[str, list[str]] = json.loads(Path(__file__).with_name("trl_names.json").read_text())
"""The fields, arguments and metrics of TRL's classes, read off its sources."""
ROW = re.compile(r"^\|(.*)\|$")
NAME = re.compile(r"`([^`]+)`")


def tables() -> dict[str, list[list[str]]]:
    """The rows of each table by its heading row, without the heading."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in DOC.read_text().splitlines():
        match = ROW.match(line)
        if match is None:
            heading = ""
        elif not heading:
            heading = match[1].strip()
            while heading in found:
                heading += " again"
            found[heading] = []
        elif set(match[1]) - set("-|"):
            found[heading].append([cell.strip() for cell in match[1].split("|")])
    return found


TABLES = tables()


def theirs(*headings: str, column: int = 0) -> set[str]:
    """The names in the columns of TRL."""
    return {name for heading in headings for row in TABLES[heading] for name in NAME.findall(row[column])}


V2 = "TRL 0.11 `PPOv2Trainer` | TRL 1.12 `PPOTrainer` | here | note"
CONFIGS = ["TRL | here | note" + " again" * times for times in range(3)]
METRICS_07, METRICS_112 = "TRL 0.11 `step` | here | note again", "TRL 0.12 to 1.12 | here | note"
PLACES = {
    "0.11.4 PPOConfig": lambda: theirs(CONFIGS[0]),
    "0.11.4 PPOTrainer": lambda: theirs("TRL 0.11 `PPOTrainer` | here | note"),
    "0.11.4 PPOTrainer.generate": lambda: theirs("TRL 0.11 `generate` | here | note"),
    "0.11.4 PPOTrainer.step": lambda: theirs("TRL 0.11 `step` | here | note"),
    "0.11.4 PPOTrainer.log_stats": lambda: theirs("TRL 0.11 `log_stats` | here | note"),
    "0.11.4 PPOTrainer metrics": lambda: theirs(METRICS_07),
    "0.11.4 PPOv2Config": lambda: theirs(CONFIGS[1]),
    "0.11.4 PPOv2Trainer": lambda: theirs(V2),
    "1.12.0 PPOConfig": lambda: theirs(CONFIGS[1]),
    "1.12.0 _BaseConfig": lambda: theirs(CONFIGS[2]),
    "1.12.0 TrainingArguments": lambda: theirs(CONFIGS[1], CONFIGS[2]),
    "1.12.0 PPOTrainer": lambda: theirs(V2, column=1),
    "1.12.0 PPOTrainer metrics": lambda: theirs(METRICS_112),
}


@pytest.mark.parametrize("group", TRL)
def test_every_name_of_trl_has_a_row_in_its_table(group: str) -> None:
    assert sorted(set(TRL[group]) - PLACES[group]()) == []


def test_no_row_is_about_a_name_that_trl_does_not_have() -> None:
    known = {name for names in TRL.values() for name in names}
    rows = {name for heading in TABLES if heading.startswith("TRL") for name in theirs(heading)}
    assert sorted(rows - known) == []


def ours() -> set[str]:
    """What stands in the columns of ours."""
    return {
        name
        for heading, rows in TABLES.items()
        if " here " in f" {heading} "
        for row in rows
        for name in NAME.findall(row[heading.split(" | ").index("here")])
    }


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, on_disk: ModuleType) -> set[str]:
    """The metrics of a step."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    policy = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(ROOT / "data/tiny_model"))
    settings = PPOSettings(steps=1, rollout_batch_size=4, entropy_coef=0.1, sampling={"max_new_tokens": 3})
    output = tmp_path_factory.mktemp("trl") / "run"
    reward = {"kind": "length", "at_most": 1}
    trainer = PPOTrainer(policy, None, reward, str(ROOT / "data/tiny_model"), settings, output_dir=output)
    trainer.train(["The film", "A"])
    return set(on_disk.metrics(output)[0])


def test_what_is_named_on_our_side_exists(logged: set[str]) -> None:
    keys = {key.path for key in keys_of(PPOSettings)} | {"critic_model", "reset"}
    arguments = {
        kind: set(inspect.signature(getattr(PPOTrainer, method)).parameters)
        for kind, method in {"PPOTrainer": "__init__", "train": "train"}.items()
    }
    missing = []
    for name in ours():
        call = re.fullmatch(r"(PPOTrainer|train)\((\w+)\)", name)
        if call is not None:
            exists = call[2] in arguments[call[1]]
        elif name.startswith("trainer."):
            exists = callable(getattr(PPOTrainer, name.removeprefix("trainer."), None))
        else:
            exists = name in (logged if "/" in name or name in ("seconds", "episode") else keys)
        missing += [] if exists else [name]
    assert missing == [] and len(ours()) > 60


def test_every_row_names_something_or_says_why_not() -> None:
    for heading, rows in TABLES.items():
        if " here " not in f" {heading} ":
            continue
        place = heading.split(" | ").index("here")
        for row in rows:
            assert NAME.search(row[place]) or (row[place] == "-" and row[place + 1]), row
