"""Stage: several policies answer the same held-out prompts, and every judge scores the answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rlhf.config import EvaluateConfig, EvaluateSettings
from rlhf.config.reading.loader import save_config
from rlhf.data.records import Prompt, Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.evaluation.compare import Comparison, side_by_side, summarise
from rlhf.evaluation.human import human_texts
from rlhf.evaluation.judges.human_labels import labelled_texts, reward_scores, train_embedding_judge, train_gold_judge
from rlhf.evaluation.output import json_lines, judged_rows, response_rows
from rlhf.evaluation.readers import PolicyGenerations, Readers
from rlhf.evaluation.respond import Policy, Response, fix_factors, load_policy, respond, sequence_kl, temperature_of
from rlhf.fetch import resolve
from rlhf.models.pretrained.tokenizer import tokenizer_fingerprint
from rlhf.printable import printable
from rlhf.rewards.kinds.model import Loaded
from rlhf.stage import completed, fingerprint, load_rows
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes
from rlhf.training.randomness import generator
from rlhf.training.storage.atomic import write_output
from rlhf.training.storage.run_directory import RunDirectory
from rlhf.training.telemetry.circumstances import write_circumstances


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonInputs:
    """The policies to compare, the prompts, and the reward model that judges; a path is loaded when its turn comes."""

    policies: Mapping[str, Policy | str]
    reference: Policy | str
    """The KL is measured to it; may be one of the policies."""
    prompts: Sequence[Row]
    prompts_name: str
    """Where the prompts come from, for messages."""
    reward_model: Loaded | str | None


def evaluate(config: EvaluateConfig) -> Path:
    """Compare policies and write comparison.json, summary.md and the responses of each.

    Returns:
        The summary.

    Raises:
        RlhfError: bad config, data or model.
    """
    output_dir = Path(config.output_dir)
    mark = fingerprint(config, _inputs(config))
    if completed(config, mark):
        return output_dir / "summary.md"
    processes = Processes()
    if processes.is_main:
        with RunDirectory(output_dir, fingerprint=mark) as directory:
            save_config(config, output_dir / "config.yaml")
            write_circumstances(output_dir, {"device": str(processes.device)}, 0)
            comparison = compare_policies(_comparison_inputs(config), config, processes.device, output_dir)
            print(f"{printable(comparison.to_table())}\n\n{comparison.samples_text()}", flush=True)
            directory.mark_complete(written_files(output_dir, config.policies))
    processes.wait()
    return output_dir / "summary.md"


def compare_policies(
    inputs: ComparisonInputs, settings: EvaluateSettings, device: torch.device, output_dir: Path | None = None
) -> Comparison:
    """Let every policy answer and every judge score the answers; write everything to `output_dir` if given.

    Raises:
        RlhfError: bad data or model, or policies that cannot be compared.
    """
    readers = _readers(settings, device)
    reference = _loaded(inputs.reference, settings, device)
    generations = _generations(inputs, settings, device, output_dir, reference, readers)
    prompts = prepare_prompts(inputs.prompts, reference.tokenizer, **settings.prompts.fitting).items
    human = _human(prompts, settings, reference, readers)
    samples = side_by_side(generations, human, settings.num_side_by_side, settings.seed)
    try:
        comparison = summarise(generations, human=human, samples=samples, seed=settings.seed)
    except ValueError as problem:
        raise ConfigError(f"policies cannot be compared: {problem}") from problem
    if output_dir is not None:
        write_output(output_dir / "comparison.json", comparison.to_json())
        shown = f"{comparison.to_markdown()}\n\n## Samples\n\n{comparison.samples_markdown()}"
        write_output(output_dir / "summary.md", f"# Comparison\n\n{shown}\n")
    return comparison


def written_files(output_dir: Path, policies: Iterable[str]) -> list[Path]:
    """Return what `compare_policies` writes."""
    return [output_dir / name for name in ("comparison.json", "summary.md", *(f"{each}.jsonl" for each in policies))]


def _generations(
    inputs: ComparisonInputs,
    settings: EvaluateSettings,
    device: torch.device,
    output_dir: Path | None,
    reference: Policy,
    readers: Readers,
) -> dict[str, PolicyGenerations]:
    dtype = compute_dtype(settings.precision, device)
    generations = {}
    for name, given in inputs.policies.items():
        print(f"{name}: answering", flush=True)
        policy = reference if given == inputs.reference else _loaded(given, settings, device)
        _check_tokenizers(name, policy, reference)
        prompts = _prompts(inputs, settings, policy)
        fix_factors(reference, prompts, settings.decoding)
        # Every policy draws the same uniform numbers: a policy compared with itself gives the same responses.
        responses = respond(policy, prompts, settings.decoding, generator(settings.seed, "evaluate"))
        if settings.decoding.filters == "model":
            print(f"{name}: answers with its own settings; the KL is measured on these answers", flush=True)
        rows = response_rows(prompts, responses)
        if output_dir is not None:
            write_output(output_dir / f"{name}.jsonl", json_lines(rows))
        kl = _kl(settings, policy, reference, prompts, responses)
        scores = None
        if inputs.reward_model is not None:
            scores = reward_scores(inputs.reward_model, policy, prompts, responses, dtype)
        generations[name] = made = readers.read(prompts, responses, np.array(kl), scores)
        if output_dir is not None:
            judged = judged_rows(rows, np.array(kl), made.scores)
            write_output(output_dir / f"{name}.jsonl", json_lines(judged))
    return generations


def _readers(settings: EvaluateSettings, device: torch.device) -> Readers:
    section, most = settings.gold, settings.microbatch_tokens
    embeddings = section.embeddings if section else None
    dtype = compute_dtype(settings.precision, device)
    return Readers(
        gold=train_gold_judge(section) if section else None,
        embeddings=train_embedding_judge(section, embeddings, device, most) if section and embeddings else None,
        fluency=load_policy(resolve(settings.fluency_model), dtype, device) if settings.fluency_model else None,
        max_tokens=most,
    )


def _human(
    prompts: Sequence[Prompt], settings: EvaluateSettings, reference: Policy, readers: Readers
) -> PolicyGenerations | None:
    """Return what people wrote, read by the same judges; None where there is no human text."""
    others = labelled_texts(settings.gold.heldout, settings.gold.limit)[0] if settings.gold else []
    most = settings.decoding.max_new_tokens
    found = human_texts(prompts, settings.human_column, others, reference, max_new_tokens=most, seed=settings.seed)
    if found is None:
        return None
    source = f"column {settings.human_column}" if found.same_prompts else "gold.heldout"
    print(f"human text: {len(found.responses)} texts of {source}, at most {most} tokens", flush=True)
    return readers.read(found.prompts, found.responses, None, None)


def _loaded(given: Policy | str, settings: EvaluateSettings, device: torch.device) -> Policy:
    if isinstance(given, Policy):
        return given
    return load_policy(given, compute_dtype(settings.precision, device), device, settings.chat)


def _kl(
    settings: EvaluateSettings,
    policy: Policy,
    reference: Policy,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
) -> list[float]:
    if policy is reference:
        return [0.0] * len(prompts)
    temperature = temperature_of(policy, settings.decoding) or 1.0
    return sequence_kl(
        policy, reference, prompts, responses, temperature=temperature, max_tokens=settings.microbatch_tokens
    )


def _check_tokenizers(name: str, policy: Policy, reference: Policy) -> None:
    ours, theirs = tokenizer_fingerprint(policy.tokenizer), tokenizer_fingerprint(reference.tokenizer)
    if ours != theirs:
        raise ConfigError(
            f"policies.{name}: {policy.path} has another tokenizer ({len(policy.tokenizer)} ids, {ours[:8]}) than the "
            f"reference {reference.path} ({len(reference.tokenizer)} ids, {theirs[:8]}), so no KL is defined "
            "- set reference to their common start, or compare them separately"
        )


def _prompts(inputs: ComparisonInputs, settings: EvaluateSettings, policy: Policy) -> list[Prompt]:
    prepared = prepare_prompts(inputs.prompts, policy.tokenizer, **settings.prompts.fitting)
    print(f"{inputs.prompts_name} [{prepared.description}]: {prepared.summary()}", flush=True)
    return prepared.items


def _comparison_inputs(config: EvaluateConfig) -> ComparisonInputs:
    policies = {name: resolve(path) for name, path in config.policies.items()}
    return ComparisonInputs(
        policies=policies,
        reference=resolve(config.reference) if config.reference else next(iter(policies.values())),
        prompts=list(load_rows(config.prompts)),
        prompts_name=config.prompts.path,
        reward_model=config.reward_model,
    )


def _inputs(config: EvaluateConfig) -> list[str]:
    optional = [config.reference, config.reward_model]
    return [*config.policies.values(), config.prompts.path, *(path for path in optional if path), *config.judge_inputs]
