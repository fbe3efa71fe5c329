"""Where resets help: PPO with a fraction of episodes begun inside demonstrations, evaluated only from the prompts.

Each run is measured on held-out prompts several times, with its KL to the initial policy and the tokens it has decoded,
so that `reset_tables.py` can compare runs at equal KL and at equal decode tokens.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from options import Parser, one_line_errors, parser, positive
from reset_tasks import TASKS, Task
from rlhf.config import PPOConfig
from rlhf.config.evaluate import DecodingSection
from rlhf.data.records import Prompt
from rlhf.data.tokenization import prepare_prompts
from rlhf.evaluation.respond import Policy, load_policy, logprobs_of_both, respond
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.stage import assemble
from rlhf.ppo.run.steps import PPOSteps
from rlhf.stage.frame import frame, load_rows
from rlhf.training.randomness import generator
from rows import Row, circumstances, save

FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SETTINGS: dict[str, Any] = {
    "rollout_batch_size": 64,
    "minibatches": 2,
    "epochs": 2,
    "microbatch_tokens": 640,
    "kl_coef": 0.05,
    "optimizer": {"learning_rate": 2e-4, "schedule": "linear"},
    "value_optimizer": {"learning_rate": 1e-3, "schedule": "constant"},
}
"""The quickstart's settings; all tasks and all fractions share them."""


def arguments() -> Parser:
    """Return the command line of this experiment."""
    made = parser(__doc__)
    made.add_argument("--task", required=True, choices=sorted(TASKS), help="which task")
    made.add_argument("--start", required=True, type=Path, metavar="RUN", help="a finished run of the quickstart")
    made.add_argument("--seed", type=int, default=0, help="seed of PPO: sampling, resets, order of prompts")
    made.add_argument("--fractions", type=float, nargs="+", default=list(FRACTIONS), metavar="F", help="reset.fraction")
    made.add_argument("--every", type=positive, default=8, help="PPO steps between measurements")
    made.add_argument("--heldout", type=positive, default=96, help="held-out prompts")
    made.add_argument("--work", required=True, type=Path, metavar="DIR", help="where runs are written")
    return made


def measured(options: Any) -> Iterator[Row]:
    """Train once per fraction, and yield one row per measurement."""
    directory = options.work / f"{options.task}-{options.seed}"
    directory.mkdir(parents=True, exist_ok=True)
    task = TASKS[options.task](options.start, directory)
    for fraction in options.fractions:
        for row in _run(task, fraction, directory / f"fraction-{fraction:g}", options):
            yield {"task": options.task, "seed": options.seed, "fraction": fraction, **row, **circumstances()}


def _run(task: Task, fraction: float, directory: Path, options: Any) -> Iterator[Row]:
    config = _config(task, fraction, directory, options)
    with frame(config, "resets") as run:
        parts = assemble(config, run)
        heldout = _Heldout(task, parts, load_policy(task.policy, run.dtype, run.device), options)
        steps = PPOSteps(parts.trainer, ListedPrompts(parts.prompts, config), run.directory.samples)
        decoded, began = 0.0, time.monotonic()
        yield {"step": 0, "decode_tokens": 0.0, "seconds": 0.0, **heldout.measure()}
        for index in range(config.steps):
            metrics = steps.step(index)
            decoded += _decode_tokens(metrics, config)
            if (index + 1) % options.every == 0 or index + 1 == config.steps:
                seconds = time.monotonic() - began
                yield {"step": index + 1, "decode_tokens": decoded, "seconds": seconds, **heldout.measure()}
        parts.trainer.collector.scorer.close()


class _Heldout:
    """Answers held-out prompts, without resets, with the current policy."""

    def __init__(self, task: Task, parts: PPORun, reference: Policy, options: Any) -> None:
        config = parts.trainer.config
        self._task, self._options, self._reference = task, options, reference
        self._policy = replace(reference, model=parts.trainer.policy.lm)
        self._decoding = DecodingSection(max_new_tokens=config.sampling.max_new_tokens)
        assert isinstance(config, PPOConfig)
        section = config.prompts.model_copy(
            update={"path": "fetch:movie-reviews/heldout_prompts.jsonl", "limit": options.heldout}
        )
        rows = load_rows(section)
        self._prompts: list[Prompt] = prepare_prompts(
            rows, reference.tokenizer, max_length=section.max_length, over_long="error"
        ).items

    def measure(self) -> Row:
        """Return the mean score with its standard error, the KL in nats per sequence, and the length."""
        responses = respond(self._policy, self._prompts, self._decoding, generator(self._options.seed, "heldout"))
        ours, theirs = logprobs_of_both(
            self._policy, self._reference, self._prompts, responses, temperature=1.0, max_tokens=2048
        )
        scores = np.array(self._task.judge(self._prompts, responses))
        return {
            "score": float(scores.mean()),
            "standard_error": float(scores.std(ddof=1) / len(scores) ** 0.5),
            "kl": float(np.mean(ours - theirs)),
            "length": float(np.mean([len(response.ids) for response in responses])),
            "ended": float(np.mean([response.ended for response in responses])),
            "example": responses[0].text,
        }


def _config(task: Task, fraction: float, directory: Path, options: Any) -> PPOConfig:
    shown = {"kind": "data", "path": task.demonstrations, "max_length": 96}
    return PPOConfig.model_validate(
        {
            "output_dir": str(directory),
            "seed": options.seed,
            "prompts": {"path": "fetch:movie-reviews/ppo_prompts.jsonl", "max_length": 32},
            "reset": {"fraction": fraction, "demonstrations": shown},
            **SETTINGS,
            **task.settings,
        }
    )


def _decode_tokens(metrics: dict[str, float], config: PPOConfig) -> float:
    """Return the tokens of a step that were sampled, not forced."""
    tokens = metrics["val/response_length"] * config.rollout_batch_size
    return tokens - metrics.get("reset/decode_tokens_saved", 0.0)


def main() -> None:
    """Measure, print each row, write the JSON."""
    made = arguments()
    options = made.parse_args()
    rows: list[Row] = []
    with one_line_errors(made):
        for row in measured(options):
            rows.append(row)
            save(rows, options.json)
            print(json.dumps({name: value for name, value in row.items() if name != "machine"}), flush=True)


if __name__ == "__main__":
    main()
