"""Makes the fixture of the current format: run it by hand when a format changes, `python tests/formats/make.py 3`.

It writes `format-3/`: rows, a base model, finished runs of three steps (SFT; a reward model; PPO with an adapter), and
`expected.json` with what a later version must find in them. Everything goes through the command line, and the numbers
about models come from transformers and peft alone, so that the script also runs with an older rlhf on PYTHONPATH:
format 1 was made with the last version that wrote it, `make.py 1 sft`.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import PeftModel
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from rlhf.cli import main

HERE = Path(__file__).parent
TEXTS = ["the film is good.", "a bad film.", "it is so dull.", "so fine a hero."]
STAGES = ("sft", "reward_model", "ppo")
ORDER = ("sft", "ppo", "reward_model")
"""In which runs are made longer: the model that judges PPO changes last."""
CHECKPOINT = 2
"""The step of the only checkpoint."""
LONGER = 4
"""Steps to which a finished run of three is made longer."""
OPTIMIZER = {"learning_rate": 1e-2, "schedule": "linear", "warmup_fraction": 0.0}
MODEL = {"precision": "float32"}
SHARED: dict[str, Any] = {
    "optimizer": OPTIMIZER,
    "microbatch_tokens": 64,
    "checkpoints": {"every": CHECKPOINT, "keep": 1},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "sft": {
        "output_dir": "sft",
        "model": {"path": "base", **MODEL},
        "data": {"path": "demonstrations.jsonl", "max_length": 32},
        "steps": 3, "batch_size": 2, **SHARED,
    },
    "reward_model": {
        "output_dir": "reward_model",
        "model": {"path": "base", **MODEL},
        "data": {"path": "pairs.jsonl", "max_length": 32},
        "steps": 3, "batch_size": 2, **SHARED,
    },
    "ppo": {
        "output_dir": "ppo",
        "model": {"path": "base", "lora": {"r": 2, "alpha": 4}, **MODEL},
        "prompts": {"path": "prompts.jsonl", "max_length": 16},
        "rewards": [{"kind": "model", "path": "reward_model/reward_model"}],
        "score": {"normalise": "running"}, "kl_control": {"controller": "adaptive"},
        "steps": 3, "rollout_batch_size": 4, "minibatches": 2, "epochs": 2, "samples_every": 2,
        "sampling": {"max_new_tokens": 6}, **SHARED,
    },
}  # fmt: skip


def command(stage: str, *overrides: str) -> list[str]:
    """Return the arguments that run a stage in the current directory."""
    return [stage.replace("_", "-"), "--config", f"{stage}.yaml", *overrides]


def make(version: int, stages: Sequence[str]) -> Path:
    """Write the fixture of a format, with some stages, in a new directory, and return it."""
    target = HERE / f"format-{version}"
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        with chdir(place):
            _inputs(stages)
            for stage in stages:
                assert main(command(stage)) == 0, stage
                (place / stage / "run.lock").write_text("")  # it names this machine
            models = {stage: seen_in_model(stage, place) for stage in stages}
            _write_json(place / "expected.json", {"models": models, "steps": next_steps(place, stages)})
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(place, target)
    return target


def seen_in_model(stage: str, place: Path) -> list[float]:
    """Return the loss of each text under the stage's policy, or the reward model's score of it."""
    base, policy, judge = place / "base", place / stage / "policy", place / stage / "reward_model"
    ids = [AutoTokenizer.from_pretrained(base)(text, return_tensors="pt").input_ids for text in TEXTS]
    with torch.no_grad():
        if stage == "reward_model":
            scorer = AutoModelForSequenceClassification.from_pretrained(judge)
            return [float(scorer(each).logits) for each in ids]
        if stage == "ppo":
            model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), policy)
        else:
            model = AutoModelForCausalLM.from_pretrained(policy)
        return [float(model(each, labels=each).loss) for each in ids]


def next_steps(place: Path, stages: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Return the metrics of the steps that follow where finished runs are made longer, in a copy."""
    found = {}
    with tempfile.TemporaryDirectory() as made, chdir(shutil.copytree(place, Path(made) / "copy")):
        for stage in sorted(stages, key=ORDER.index):
            assert main(command(stage, f"steps={LONGER}")) == 0, stage
            found[stage] = steps_after_checkpoint(Path(stage))
    return found


def steps_after_checkpoint(run: Path) -> list[dict[str, float]]:
    """Return the metrics of the steps after the checkpoint, without times."""
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name != "seconds"} for row in rows if row["step"] > CHECKPOINT]


def _inputs(stages: Sequence[str]) -> None:
    """Write the base model, the rows and the configurations."""
    pairs = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in TEXTS]
    rows = {
        "demonstrations": [{"prompt": start, "completion": end} for start, end in pairs],
        "prompts": [{"prompt": start} for start, _ in pairs],
        "pairs": [{"prompt": start, "chosen": end, "rejected": end[::-1]} for start, end in pairs],
    }
    for name, values in rows.items():
        Path(f"{name}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    for stage in stages:
        _write_json(Path(f"{stage}.yaml"), CONFIGS[stage])  # JSON is YAML
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        **sizes, num_key_value_heads=1, head_dim=4, vocab_size=len(tokenizer), max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained("base")
    tokenizer.save_pretrained("base")


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a letter."""
    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    symbols = [*special, *" .abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    backend.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **names)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    print(make(int(sys.argv[1]), sys.argv[2:] or STAGES))
