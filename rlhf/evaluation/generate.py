"""Verb: answer prompts from a file or standard input, as JSONL."""

import sys
from pathlib import Path

import torch

from rlhf.config import GenerateConfig
from rlhf.data.records import Prepared, Prompt, Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import DataError
from rlhf.evaluation.output import response_lines, write_output
from rlhf.evaluation.respond import Policy, fix_factors, load_policy, respond
from rlhf.fetch import resolve
from rlhf.stage import load_rows
from rlhf.training.precision import compute_dtype
from rlhf.training.randomness import generator

NO_LIMIT = 10**9
"""Tokens of a prompt from standard input; the model's positions are what limits it."""


def generate(config: GenerateConfig) -> Path | None:
    """Answer every prompt `samples_per_prompt` times.

    Returns:
        The JSONL file (prompt, response, ended, tokens), None when it went to standard output.

    Raises:
        RlhfError: bad config, data or model.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    policy = load_policy(resolve(config.model), compute_dtype(config.precision, device), device)
    prepared = _prompts(config, policy)
    counts = ", ".join(f"{name} {count}" for name, count in prepared.counts.items() if count)
    print(f"prompts: {counts}", file=sys.stderr, flush=True)
    longest = max(len(prompt.ids) for prompt in prepared.items) if config.prompts is None else config.prompts.max_length
    fix_factors(policy.model, policy.path, longest + config.decoding.max_new_tokens)
    prompts = [prompt for prompt in prepared.items for _ in range(config.samples_per_prompt)]
    responses = respond(policy, prompts, config.decoding, generator(config.seed, "generate"))
    if config.output is None:
        # ASCII: a terminal obeys control characters, and may have another encoding.
        sys.stdout.write(response_lines(prompts, responses, ensure_ascii=True))
        return None
    write_output(Path(config.output), response_lines(prompts, responses))
    return Path(config.output)


def _prompts(config: GenerateConfig, policy: Policy) -> Prepared[Prompt]:
    section = config.prompts
    if section is None:
        return prepare_prompts(_rows_of_standard_input(), policy.tokenizer, max_length=NO_LIMIT, over_long="error")
    return prepare_prompts(
        load_rows(section),
        policy.tokenizer,
        max_length=section.max_length,
        over_long=section.over_long,
        on_empty=section.on_empty,
    )


def _rows_of_standard_input() -> list[Row]:
    try:
        lines = [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: byte {error.start} is not {error.encoding} - convert the text") from None
    rows = [Row({"prompt": line}, f"standard input:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError("standard input: 0 prompts - give one a line, or set prompts.path")
    return rows
