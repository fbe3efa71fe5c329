"""Whatever the JSON of a model's directory holds, the model is loaded or refused as documented."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odd_values import GARBAGE, as_json, damaged, trials
from rlhf.errors import ConfigError
from rlhf.models.pretrained.generation import ignored_settings, is_greedy
from rlhf.models.pretrained.loading import load_causal_lm, load_scalar_lm
from rlhf.models.pretrained.tokenizer import eos_ids, load_tokenizer
from rlhf.training.storage.fingerprint import content_digest

FIXTURE = Path(__file__).parents[1] / "formats" / "format-2"
KEYS = {
    "config.json": [
        "quantization_config",
        "auto_map",
        "_attn_implementation",
        "rope_scaling",
        "num_labels",
        "id2label",
    ],
    "generation_config.json": ["temperature", "top_k", "do_sample", "stop_strings", "cache_implementation"],
    "tokenizer_config.json": ["auto_map", "chat_template", "additional_special_tokens", "model_max_length"],
    "adapter_config.json": ["auto_mapping", "base_model_name_or_path"],
    "base_model.json": [],
    "model.safetensors.index.json": ["metadata"],
    "tokenizer.json": [],
}
INDEX = {"metadata": {"total_size": 6000}, "weight_map": {"model.norm.weight": "model.safetensors"}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of a policy, a reward model and an adapter with its base, whose files the examples replace."""
    return Path(shutil.copytree(FIXTURE, tmp_path_factory.mktemp("models") / "of"))


def _policy(path: str) -> None:
    model = load_causal_lm(path)
    ignored_settings(model)
    is_greedy(model)


def _tokenizer(path: str) -> None:
    eos_ids(path, load_tokenizer(path))


def _reward_model(path: str) -> None:
    load_scalar_lm(path, new_head=False)


Reader = Callable[[str], object]
CASES: list[tuple[str, str, list[Reader]]] = [
    ("sft/policy", "config.json", [_policy, _tokenizer]),
    ("sft/policy", "generation_config.json", [_policy, _tokenizer]),
    ("sft/policy", "tokenizer_config.json", [_tokenizer]),
    ("sft/policy", "tokenizer.json", [_tokenizer]),
    ("sft/policy", "model.safetensors.index.json", [_policy]),
    ("reward_model/reward_model", "config.json", [_reward_model]),
    ("ppo/policy", "adapter_config.json", [content_digest, _policy]),
    ("ppo/policy", "base_model.json", [content_digest, _policy]),
]


@pytest.mark.parametrize(("place", "name", "readers"), CASES, ids=[f"{place}/{name}" for place, name, _ in CASES])
@trials(12)
@given(data=st.data())
def test_any_json_in_a_models_directory_is_taken_or_refused(
    models: Path, place: str, name: str, readers: list[Reader], data: st.DataObject
) -> None:
    file = models / place / name
    original = FIXTURE / place / name
    good: Any = json.loads(original.read_text()) if original.exists() else INDEX
    file.write_bytes(data.draw(damaged(good, KEYS[name]).map(as_json) | GARBAGE))
    try:
        for read in readers:
            with suppress(ConfigError):
                read(str(models / place))
    finally:
        if original.exists():
            shutil.copy(original, file)
        else:
            file.unlink()
