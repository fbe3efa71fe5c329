"""Tests of rlhf.models.pretrained.place."""

from pathlib import Path

import pytest

from rlhf.errors import ConfigError
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.models.pretrained.place import check_exists
from rlhf.models.pretrained.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("/no/such", "give a model directory, fetch:NAME or a hub name"),
        ("./mine", "give a model directory"),
        ("runs/x/sft/policy", "`rlhf sft` writes it: run that stage first"),
        ("runs/x/ppo/policy", "`rlhf ppo` writes it"),
        ("runs/x/reward_model/reward_model", "`rlhf reward-model` writes it"),
    ],
)
def test_a_missing_directory_is_named_with_the_stage_that_writes_it(path: str, fix: str) -> None:
    for load in (check_exists, load_tokenizer, load_causal_lm):
        with pytest.raises(ConfigError, match=f"^{path}: there is no such directory - {fix}"):
            load(path)


@pytest.mark.parametrize("name", ["gpt2", "HuggingFaceTB/SmolLM2-135M"])
def test_what_may_be_a_name_on_the_hub_passes(name: str, tmp_path: Path) -> None:
    check_exists(name)
    check_exists(str(tmp_path))
