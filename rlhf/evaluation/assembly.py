"""Stage: several policies answer the same held-out prompts, and every judge reads the answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rlhf.config import EvaluateConfig
from rlhf.config.loader import save_config
from rlhf.config.shared import DataSection
from rlhf.data.records import Prompt
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.compare import PolicyGenerations, side_by_side, summarise
from rlhf.evaluation.gold import GoldJudge
from rlhf.evaluation.respond import Policy, Response, load_policy, respond, sequence_kl
from rlhf.fetch import resolve
from rlhf.printable import printable
from rlhf.rewards.model import ModelReward
from rlhf.rewards.protocol import Episode
from rlhf.stage import completed, fingerprint, load_rows
from rlhf.training.atomic import write_atomic
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes
from rlhf.training.randomness import generator
from rlhf.training.run_directory import RunDirectory


def evaluate(config: EvaluateConfig) -> Path:
    """Compare policies and write comparison.json, summary.md and the responses of each.

    Returns:
        The summary.

    Raises:
        RlhfError: bad config, data or model.
    """
    summary = Path(config.output_dir) / "summary.md"
    mark = fingerprint(config, _inputs(config))
    if completed(config, mark):
        return summary
    processes = Processes()
    if processes.is_main:
        with RunDirectory(Path(config.output_dir), fingerprint=mark) as directory:
            save_config(config, directory.path / "config.yaml")
            _evaluate(config, processes.device, summary)
            directory.mark_complete()
    processes.wait()
    return summary


def _evaluate(config: EvaluateConfig, device: torch.device, summary: Path) -> None:
    gold = _gold_judge(config)
    dtype = compute_dtype(config.precision, device)
    first = next(iter(config.policies.values()))
    reference = load_policy(resolve(config.reference or first), dtype, device)
    generations: dict[str, PolicyGenerations] = {}
    for name, path in config.policies.items():
        print(f"{name}: answering", flush=True)
        policy = load_policy(resolve(path), dtype, device)
        prompts = _prompts(config.prompts, policy)
        responses = respond(policy, prompts, config.decoding, generator(config.seed, "evaluate"))
        _write_responses(summary.with_name(f"{name}.jsonl"), prompts, responses)
        kl = sequence_kl(
            policy,
            reference,
            prompts,
            responses,
            temperature=config.decoding.temperature or 1.0,
            max_tokens=config.microbatch_tokens,
        )
        generations[name] = _judged(config, policy, prompts, responses, kl, gold)
    _write(config, generations, summary)


def _judged(
    config: EvaluateConfig,
    policy: Policy,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    kl: Sequence[float],
    gold: GoldJudge | None,
) -> PolicyGenerations:
    texts = [judged_text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    rewards = None
    if config.reward_model is not None:
        device = policy.model.device
        dtype = compute_dtype(config.precision, device)
        judge = ModelReward(resolve(config.reward_model), policy.tokenizer, dtype=dtype, device=device)
        rewards = np.array(judge.score([_episode(p, r) for p, r in zip(prompts, responses, strict=True)]))
    return PolicyGenerations(
        prompts=[prompt.text for prompt in prompts],
        texts=texts,
        kl=np.array(kl),
        lengths=np.array([len(response.ids) for response in responses]),
        ended=np.array([response.ended for response in responses]),
        reward_scores=rewards,
        gold=None if gold is None else gold.judge(texts),
    )


def judged_text(prompt: Prompt, response: Response) -> str:
    """Return what a reader sees: a plain prompt and its response, without the word that a cut left unfinished."""
    text = response.text
    if not response.ended and " " in text.strip():
        text = text.rsplit(" ", 1)[0]
    return prompt.raw + text if isinstance(prompt.raw, str) else text


def _gold_judge(config: EvaluateConfig) -> GoldJudge | None:
    section = config.gold
    if section is None:
        return None
    print("gold judge: fitting on human labels that no training stage has seen", flush=True)
    texts, labels = _labelled(section.train)
    heldout, truth = _labelled(section.heldout)
    judge = GoldJudge.train(
        texts, labels, heldout, fluency_penalty=section.fluency_penalty, repetition_penalty=section.repetition_penalty
    )
    right = float(np.mean(judge.verdict(heldout) == np.array(truth, dtype=bool)))
    print(f"gold judge: agrees with the author on {right:.1%} of {len(heldout)} held-out human texts", flush=True)
    return judge


def _labelled(path: str) -> tuple[list[str], list[int]]:
    rows = load_rows(DataSection(path=path))
    for row in rows:
        if not isinstance(row.values.get("text"), str) or row.values.get("label") not in (0, 1):
            raise DataError(f"{row.location}: a row of the gold judge needs text (a string) and label (0 or 1)")
    return [str(row.values["text"]) for row in rows], [1 if row.values["label"] == 1 else 0 for row in rows]


def _prompts(section: DataSection, policy: Policy) -> list[Prompt]:
    prepared = prepare_prompts(
        load_rows(section),
        policy.tokenizer,
        max_length=section.max_length,
        over_long=section.over_long,
        on_empty=section.on_empty,
    )
    return prepared.items


def _episode(prompt: Prompt, response: Response) -> Episode:
    return Episode(
        prompt=prompt.raw,
        completion=response.text,
        columns=prompt.columns,
        prompt_ids=prompt.ids,
        response_ids=response.ids,
    )


def _write_responses(path: Path, prompts: Sequence[Prompt], responses: Sequence[Response]) -> None:
    rows = [
        {"prompt": prompt.raw, "response": response.text, "ended": response.ended, "tokens": len(response.ids)}
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(config: EvaluateConfig, generations: Mapping[str, PolicyGenerations], summary: Path) -> None:
    try:
        comparison = summarise(generations, seed=config.seed)
    except ValueError as problem:
        raise ConfigError(f"policies cannot be compared: {problem}") from problem
    samples = side_by_side(generations, config.num_side_by_side)
    write_atomic(summary.with_name("comparison.json"), comparison.to_json())
    write_atomic(summary, f"# Comparison\n\n{comparison.to_markdown()}\n\n## Samples\n\n{samples}\n")
    print(printable(comparison.to_table()), flush=True)


def _inputs(config: EvaluateConfig) -> list[str]:
    optional = [config.reference, config.reward_model]
    gold = [config.gold.train, config.gold.heldout] if config.gold else []
    return [*config.policies.values(), config.prompts.path, *(path for path in optional if path), *gold]
