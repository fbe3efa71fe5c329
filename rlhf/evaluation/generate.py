"""Verb: answer prompts from a file or standard input, as JSONL."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf.config import GenerateConfig, GenerateSettings
from rlhf.config.evaluate import NO_LIMIT
from rlhf.data.records import Prepared, Prompt, Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import DataError
from rlhf.evaluation.output import json_lines, response_rows
from rlhf.evaluation.respond import Answering, Policy, Response, load_policy_here, respond
from rlhf.stage.frame import load_rows
from rlhf.training.randomness import generator
from rlhf.training.storage.atomic import write_output


def generate(config: GenerateConfig) -> Path | None:
    """Answer every prompt `samples_per_prompt` times.

    Returns:
        The JSONL file (prompt, response, ended, tokens), None when it went to standard output.

    Raises:
        RlhfError: bad config, data or model.
    """
    policy = load_policy_here(config.model, config.precision, config.chat)
    prepared = prompts_of(config, policy)
    print(f"prompts [{prepared.description}]: {prepared.summary()}", file=sys.stderr, flush=True)
    rows = answers(policy, prepared.items, config)
    if config.output is None:
        # ASCII: a terminal obeys control characters, and may have another encoding.
        sys.stdout.write(json_lines(rows, ensure_ascii=True))
        return None
    write_output(Path(config.output), json_lines(rows))
    return Path(config.output)


def answers(
    policy: Policy, prompts: Sequence[Prompt], config: GenerateConfig | GenerateSettings
) -> list[dict[str, Any]]:
    """Answer every prompt `samples_per_prompt` times.

    Returns:
        One row per response, grouped by prompt: prompt, response, ended, tokens.

    Raises:
        ConfigError: a prompt and its response do not fit into the model's positions.
    """
    return response_rows(*answered(policy, prompts, config))


def answered(
    policy: Policy, prompts: Sequence[Prompt], config: GenerateConfig | GenerateSettings
) -> tuple[list[Prompt], list[Response]]:
    """Return the same as records: each prompt as often as it is answered, and its answers.

    Raises:
        ConfigError: a prompt and its response do not fit into the model's positions.
    """
    asked = [prompt for prompt in prompts for _ in range(config.samples_per_prompt)]
    answering = Answering(config.engine)
    return asked, respond(policy, asked, config.decoding, generator(config.seed, "generate"), answering)


def prompts_of(config: GenerateConfig, policy: Policy) -> Prepared[Prompt]:
    """Read the prompts that a configuration names, or one per line of standard input."""
    section = config.prompts
    if section is None:
        return prepare_prompts(_rows_of_standard_input(), policy.tokenizer, max_length=NO_LIMIT, over_long="error")
    return prepare_prompts(load_rows(section), policy.tokenizer, **section.fitting)


def _rows_of_standard_input() -> list[Row]:
    try:
        lines = [line.rstrip("\r\n") for line in sys.stdin]
    except UnicodeDecodeError as error:
        raise DataError(f"standard input: byte {error.start} is not {error.encoding} - convert the text") from None
    rows = [Row({"prompt": line}, f"standard input:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError("standard input: 0 prompts - give one per line, or set prompts.path")
    return rows
