"""Tiny random policies on disk, as the stages save them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel


@pytest.fixture(scope="session")
def policy_directory(
    root: Path, tiny_model: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A factory: the directory of a random policy of 128 positions with the tokenizer of data/tiny_model."""
    built: dict[int, Path] = {}

    def build(seed: int = 0) -> Path:
        if seed not in built:
            directory = tmp_path_factory.mktemp(f"policy-{seed}")
            tokenizer = AutoTokenizer.from_pretrained(root / "data/tiny_model")
            model = tiny_model("llama", seed=seed, vocab_size=len(tokenizer), max_position_embeddings=128)
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            built[seed] = directory
        return built[seed]

    return build


@pytest.fixture(scope="session")
def reward_model_directory(policy_directory: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random reward model on the trunk of policy 0."""
    directory = tmp_path_factory.mktemp("reward_model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModelForSequenceClassification.from_pretrained(policy_directory(0), num_labels=1)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(policy_directory(0)).save_pretrained(directory)
    return directory
