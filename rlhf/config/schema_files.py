"""The JSON schemas under configs/schema, with which editors complete and check YAML files.

`python -m rlhf.config.schema_files` rewrites them.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rlhf.config import (
    EvaluateConfig,
    GenerateConfig,
    LabelConfig,
    PPOConfig,
    RewardModelConfig,
    RunConfig,
    SamplePairsConfig,
    ScoreConfig,
    SftConfig,
)
from rlhf.config.reading.keys import section_keys

SCHEMAS: dict[str, type[BaseModel]] = {
    "sft": SftConfig,
    "reward_model": RewardModelConfig,
    "ppo": PPOConfig,
    "generate": GenerateConfig,
    "sample_pairs": SamplePairsConfig,
    "label": LabelConfig,
    "score": ScoreConfig,
    "evaluate": EvaluateConfig,
    "run": RunConfig,
}
"""The schema of each YAML file, by file name without extension."""

DIRECTORY = Path("configs/schema")
"""Where the files are, relative to the root of the repository."""


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}


def schema_texts() -> dict[Path, str]:
    """Return each file's path and text."""
    schemas = {name: json_schema(model) for name, model in SCHEMAS.items()}
    for name in section_keys(RunConfig):
        _allow_file(schemas["run"]["properties"][name])
    for definition in schemas["run"]["$defs"].values():
        # In a recipe a stage's directory follows from the recipe's.
        definition["required"] = [key for key in definition.get("required", []) if key != "output_dir"]
    return {DIRECTORY / f"{name}.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}


def _allow_file(section: dict[str, Any]) -> None:
    """Let a stage's section also be the path of the stage's own file, which the loader reads."""
    section.setdefault("anyOf", []).append({"type": "string", "description": "path of the stage's own file"})


def main() -> None:
    """Write the files."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for path, text in schema_texts().items():
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
