"""Stage: several policies answer the same held-out prompts, and every judge reads the answers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rlhf.config import EvaluateConfig
from rlhf.config.reading.loader import save_config
from rlhf.config.shared import DataSection
from rlhf.data.records import Prompt
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.evaluation.compare import PolicyGenerations, side_by_side, summarise
from rlhf.evaluation.gold import GoldJudge
from rlhf.evaluation.judges import reward_scores, train_gold_judge
from rlhf.evaluation.output import response_lines, write_output
from rlhf.evaluation.respond import Policy, Response, load_policy, respond, sequence_kl
from rlhf.fetch import resolve
from rlhf.models.pretrained.tokenizer import tokenizer_fingerprint
from rlhf.printable import printable
from rlhf.stage import completed, fingerprint, load_rows
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes
from rlhf.training.randomness import generator
from rlhf.training.storage.run_directory import RunDirectory


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
            _write(config, _generations(config, processes.device), summary)
            directory.mark_complete()
    processes.wait()
    return summary


def judged_text(prompt: Prompt, response: Response) -> str:
    """Return what a reader sees: a plain prompt and its response, without the word that a cut left unfinished."""
    text = response.text
    if not response.ended and re.search(r"\S\s", text):
        text = re.sub(r"\s+\S*\Z", "", text)
    return prompt.raw + text if isinstance(prompt.raw, str) else text


def _generations(config: EvaluateConfig, device: torch.device) -> dict[str, PolicyGenerations]:
    gold = None if config.gold is None else train_gold_judge(config.gold)
    dtype = compute_dtype(config.precision, device)
    longest = config.prompts.max_length + config.decoding.max_new_tokens
    reference = load_policy(resolve(config.reference or next(iter(config.policies.values()))), dtype, device, longest)
    generations = {}
    for name, path in config.policies.items():
        print(f"{name}: answering", flush=True)
        directory = resolve(path)
        policy = reference if directory == reference.path else load_policy(directory, dtype, device, longest)
        _check_tokenizers(name, policy, reference)
        prompts = _prompts(config.prompts, policy)
        # Every policy draws the same uniform numbers: a policy that meets itself says the same.
        responses = respond(policy, prompts, config.decoding, generator(config.seed, "evaluate"))
        write_output(Path(config.output_dir) / f"{name}.jsonl", response_lines(prompts, responses))
        kl = _kl(config, policy, reference, prompts, responses)
        scores = None
        if config.reward_model is not None:
            scores = reward_scores(config.reward_model, policy, prompts, responses, dtype)
        generations[name] = _judged(prompts, responses, kl, scores, gold)
    return generations


def _kl(
    config: EvaluateConfig,
    policy: Policy,
    reference: Policy,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
) -> list[float]:
    if policy is reference:
        return [0.0] * len(prompts)
    temperature = config.decoding.temperature or 1.0
    return sequence_kl(
        policy, reference, prompts, responses, temperature=temperature, max_tokens=config.microbatch_tokens
    )


def _judged(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    kl: Sequence[float],
    scores: np.ndarray | None,
    gold: GoldJudge | None,
) -> PolicyGenerations:
    texts = [judged_text(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    return PolicyGenerations(
        prompts=[prompt.text for prompt in prompts],
        texts=texts,
        kl=np.array(kl),
        lengths=np.array([len(response.ids) for response in responses]),
        ended=np.array([response.ended for response in responses]),
        reward_scores=scores,
        gold=None if gold is None else gold.judge(texts),
    )


def _check_tokenizers(name: str, policy: Policy, reference: Policy) -> None:
    ours, theirs = tokenizer_fingerprint(policy.tokenizer), tokenizer_fingerprint(reference.tokenizer)
    if ours != theirs:
        raise ConfigError(
            f"policies.{name}: {policy.path} has another tokenizer ({len(policy.tokenizer)} ids, {ours[:8]}) than the "
            f"reference {reference.path} ({len(reference.tokenizer)} ids, {theirs[:8]}), so no KL is defined "
            "- set reference to their common start, or compare them apart"
        )


def _prompts(section: DataSection, policy: Policy) -> list[Prompt]:
    prepared = prepare_prompts(
        load_rows(section),
        policy.tokenizer,
        max_length=section.max_length,
        over_long=section.over_long,
        on_empty=section.on_empty,
    )
    counts = ", ".join(f"{name} {count}" for name, count in prepared.counts.items() if count)
    print(f"{section.path}: {counts}", flush=True)
    return prepared.items


def _write(config: EvaluateConfig, generations: Mapping[str, PolicyGenerations], summary: Path) -> None:
    try:
        comparison = summarise(generations, seed=config.seed)
    except ValueError as problem:
        raise ConfigError(f"policies cannot be compared: {problem}") from problem
    samples = side_by_side(generations, config.num_side_by_side)
    write_output(summary.with_name("comparison.json"), comparison.to_json())
    write_output(summary, f"# Comparison\n\n{comparison.to_markdown()}\n\n## Samples\n\n{samples}\n")
    print(printable(comparison.to_table()), flush=True)


def _inputs(config: EvaluateConfig) -> list[str]:
    optional = [config.reference, config.reward_model]
    gold = [config.gold.train, config.gold.heldout] if config.gold else []
    return [*config.policies.values(), config.prompts.path, *(path for path in optional if path), *gold]
