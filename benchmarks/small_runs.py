"""Profiled PPO runs of random models of chosen sizes, by the command line, on one process or several."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from rlhf.plan.shapes import SHAPES

ROOT = Path(__file__).parents[1]
PROMPT = "From the start the ending was"
"""Of every row; its tokens are counted by the tokenizer of data/tiny_model."""
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "small": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
    "5M": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 6},
    "20M": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 11, "num_attention_heads": 6},
    "60M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 18, "num_attention_heads": 8},
    "135M": SHAPES["smollm2-135m"].keys(),
}
"""Shapes of Llama; `tiny` and `small` show that a benchmark runs. A large vocabulary hardly ever draws the EOS, so that
responses have their full length."""
COMMON = {"vocab_size": 8192, "tie_word_embeddings": True, "max_position_embeddings": 2048}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One point: how large the model, its responses and its batches are, and on how many processes."""

    size: str
    response: int = 32
    batch: int = 16
    processes: int = 1
    steps: int = 2

    @property
    def name(self) -> str:
        """Of its directory."""
        return f"{self.size}-{self.response}-{self.batch}-{self.processes}"

    def config(self, place: Path) -> dict[str, Any]:
        """Return its configuration, as a YAML file of `rlhf ppo` has it."""
        return {
            "output_dir": str(place / self.name),
            "model": {"path": str(place / self.size)},
            "prompts": {"path": str(place / "prompts.jsonl"), "max_length": 32},
            "rewards": [{"kind": "length", "at_most": 16}],
            "sampling": {"max_new_tokens": self.response, "batch_rows": 64},
            **{"steps": self.steps, "rollout_batch_size": self.batch, "minibatches": 1, "epochs": 1},
            **{"microbatch_tokens": 2048, "checkpoints": {"every": None}, "compile": "off"},
        }


def prepare(place: Path, sizes: set[str]) -> None:
    """Write a random model of each size, and prompts, into a directory."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = str(ROOT / "data/tiny_model")
    for size in sorted(sizes):
        torch.manual_seed(0)
        shape: dict[str, Any] = {**COMMON, "num_key_value_heads": 2, **SIZES[size]}
        shape["head_dim"] = shape["hidden_size"] // shape["num_attention_heads"]
        config = AutoConfig.from_pretrained(source, **shape)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(place / size)
        AutoTokenizer.from_pretrained(source).save_pretrained(place / size)
    (place / "prompts.jsonl").write_text(f"{json.dumps({'prompt': PROMPT})}\n" * 1024)


def prompt_tokens() -> int:
    """Return the tokens of every prompt."""
    from rlhf.models.pretrained.tokenizer import load_tokenizer

    return len(load_tokenizer(str(ROOT / "data/tiny_model"))(PROMPT)["input_ids"])


def do(run: Run, place: Path, *, seconds: float = 600) -> Path:
    """Do a run, profiled, in processes of its own; return its output directory.

    Raises:
        RuntimeError: it failed, or took longer than `seconds`; the message ends with what it printed.
    """
    file = place / f"{run.name}.yaml"
    file.write_text(yaml.safe_dump(run.config(place)))
    command = [sys.executable, "-m", "rlhf", "ppo", "--profile", "--config", str(file)]
    with _children(command, run.processes) as processes:
        try:
            printed = [process.communicate(timeout=seconds)[1] for process in processes]
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{run.name}: not done within {seconds:.0f} s") from None
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{run.name}: " + "\n".join(printed)[-2000:])
    return place / run.name


def steps_of(directory: Path) -> list[dict[str, float]]:
    """Return the rows of a run's steps after the first, which compiles and takes memory."""
    lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "time/forward" in row][1:]


@contextmanager
def _children(command: list[str], num: int) -> Iterator["list[subprocess.Popen[str]]"]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num)), "HF_HUB_OFFLINE": "1"}
    group = {"WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if num > 1 else {}
    processes = [
        subprocess.Popen(  # noqa: S603 - no shell, and the arguments are our own
            command,
            env={**os.environ, **own, **group, **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if num > 1 else {})},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
