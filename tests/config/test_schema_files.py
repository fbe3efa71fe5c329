"""Tests of rlhf.config.schema_files."""

import json
from pathlib import Path

import pytest

from rlhf.config.schema_files import SCHEMAS, json_schema, schema_texts


@pytest.mark.parametrize("path", schema_texts(), ids=str)
def test_the_committed_schema_is_current(path: Path, root: Path) -> None:
    assert (root / path).read_text() == schema_texts()[path], "run: python -m rlhf.config.schema_files"


def test_no_other_schema_is_committed(root: Path) -> None:
    assert {path.stem for path in (root / "configs/schema").iterdir()} == set(SCHEMAS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_refuses_unknown_keys_and_describes_the_known_ones(name: str) -> None:
    schema = json_schema(SCHEMAS[name])
    assert schema["additionalProperties"] is False
    assert schema["properties"]["seed" if "seed" in SCHEMAS[name].model_fields else "output"]["description"]


def test_a_stage_of_a_recipe_may_be_the_path_of_a_file() -> None:
    run = json.loads(schema_texts()[Path("configs/schema/run.json")])
    for stage in ("sft", "reward_model", "ppo", "evaluate"):
        assert "string" in [option.get("type") for option in run["properties"][stage]["anyOf"]]
    assert "anyOf" not in run["properties"]["output_dir"]


def test_a_stage_of_a_recipe_needs_no_directory_of_its_own() -> None:
    run = json.loads(schema_texts()[Path("configs/schema/run.json")])
    assert "output_dir" in run["required"]
    assert "output_dir" not in run["$defs"]["PPOConfig"]["required"]
    assert "output_dir" in json_schema(SCHEMAS["ppo"])["required"]
