"""The scripts in benchmarks/ import their neighbours by bare name, as Python does for a script's own directory."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


@pytest.fixture
def model_directory(tmp_path, tiny_model, tiny_tokenizer):
    """A saved tiny Llama with its tokenizer."""
    directory = tmp_path / "model"
    tiny_model("llama").save_pretrained(directory)
    tiny_tokenizer.save_pretrained(directory)
    return str(directory)
