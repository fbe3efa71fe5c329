"""Verb: answer prompts from a file or standard input, as JSONL."""

import json
import sys
from pathlib import Path

import torch

from rlhf.config import GenerateConfig
from rlhf.data.records import Prompt, Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import DataError
from rlhf.evaluation.respond import Policy, load_policy, respond
from rlhf.fetch import resolve
from rlhf.stage import load_rows
from rlhf.training.atomic import write_atomic
from rlhf.training.precision import compute_dtype
from rlhf.training.randomness import generator


def generate(config: GenerateConfig) -> Path | None:
    """Answer every prompt `samples_per_prompt` times.

    Returns:
        The JSONL file (prompt, response, ended, tokens), None when it went to standard output.

    Raises:
        RlhfError: bad config, data or model.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy = load_policy(resolve(config.model), compute_dtype(config.precision, device), device)
    prompts = [prompt for prompt in _prompts(config, policy) for _ in range(config.samples_per_prompt)]
    responses = respond(policy, prompts, config.decoding, generator(config.seed, "generate"))
    lines = "".join(
        json.dumps(
            {"prompt": prompt.raw, "response": response.text, "ended": response.ended, "tokens": len(response.ids)},
            ensure_ascii=False,
        )
        + "\n"
        for prompt, response in zip(prompts, responses, strict=True)
    )
    if config.output is None:
        sys.stdout.write(lines)
        return None
    output = Path(config.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, lines)
    return output


def _prompts(config: GenerateConfig, policy: Policy) -> list[Prompt]:
    section = config.prompts
    if section is not None:
        return prepare_prompts(
            load_rows(section),
            policy.tokenizer,
            max_length=section.max_length,
            over_long=section.over_long,
            on_empty=section.on_empty,
        ).items
    lines = [line.rstrip("\n") for line in sys.stdin]
    rows = [Row({"prompt": line}, f"standard input:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError("standard input: 0 prompts - give one a line, or set prompts.path")
    return prepare_prompts(rows, policy.tokenizer, max_length=10**6, over_long="error", on_empty="error").items
