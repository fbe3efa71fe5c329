"""Stage: several policies answer the same held-out prompts, and every judge scores the answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from rlhf.config import EvaluateConfig, EvaluateSettings
from rlhf.config.judges import EMBEDDING, GOLD, PROXY, OpenAIJudgeSection
from rlhf.config.reading.loader import save_config
from rlhf.data.records import Prompt, Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.evaluation.compare import Comparison, side_by_side, summarise
from rlhf.evaluation.human import HumanTexts, human_texts
from rlhf.evaluation.judges.human_labels import labelled_texts, train_embedding_judge, train_gold_judge
from rlhf.evaluation.judges.pairwise import ChatJudge, Compared
from rlhf.evaluation.judges.scorers import make_scorers
from rlhf.evaluation.judges.verdicts import Pair, pairs_of
from rlhf.evaluation.measuring import Answered, Measuring, work
from rlhf.evaluation.output import json_lines, judged_rows, response_rows
from rlhf.evaluation.readers import PolicyGenerations, Readers
from rlhf.evaluation.respond import Answering, Policy, fix_factors, load_policy
from rlhf.fetch import resolve
from rlhf.models.pretrained.tokenizer import tokenizer_fingerprint
from rlhf.printable import printable
from rlhf.rewards.kinds.model import Loaded
from rlhf.stage.frame import completed, fingerprint, load_rows
from rlhf.stage.rewards import Given, reward_inputs
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes
from rlhf.training.storage.atomic import write_output
from rlhf.training.storage.run_directory import RunDirectory
from rlhf.training.telemetry.circumstances import write_circumstances
from rlhf.training.telemetry.progress import Progress


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
    judges: Mapping[str, Given] = field(default_factory=dict)
    """Functions and classifiers in memory, by the name of their section in the settings."""


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
            directory.mark_complete(written_files(output_dir, comparison.policies))
    processes.wait()
    return output_dir / "summary.md"


def compare_policies(
    inputs: ComparisonInputs, settings: EvaluateSettings, device: torch.device, output_dir: Path | None = None
) -> Comparison:
    """Let every policy answer and every judge score the answers; write everything to `output_dir` if given.

    Raises:
        RlhfError: bad data or model, or policies that cannot be compared.
    """
    _check_best_of(inputs, settings)
    pairwise = {
        name: ChatJudge(name, section)
        for name, section in settings.judges.items()
        if isinstance(section, OpenAIJudgeSection)
    }
    measuring = make_measuring(inputs, settings, device)
    with measuring.progress as progress:
        try:
            generations = measured_policies(inputs, measuring, device, output_dir)
            human = measuring.human_read()
        finally:
            measuring.scorers.close()
        compared = {name: _compared(judge, generations, progress) for name, judge in pairwise.items()}
    samples = side_by_side(generations, human, settings.num_side_by_side, settings.seed)
    try:
        comparison = summarise(generations, human=human, compared=compared, samples=samples, seed=settings.seed)
    except ValueError as problem:
        raise ConfigError(f"policies cannot be compared: {problem}") from problem
    if output_dir is not None:
        write_output(output_dir / "comparison.json", comparison.to_json())
        shown = f"{comparison.to_markdown()}\n\n## Samples\n\n{comparison.samples_markdown()}"
        write_output(output_dir / "summary.md", f"# Comparison\n\n{shown}\n")
    return comparison


def written_files(output_dir: Path, policies: Iterable[str]) -> list[Path]:
    """Return what `compare_policies` writes; `policies` are all that the comparison holds."""
    return [output_dir / name for name in ("comparison.json", "summary.md", *(f"{each}.jsonl" for each in policies))]


def make_measuring(
    inputs: ComparisonInputs, settings: EvaluateSettings, device: torch.device, *, further: int = 0
) -> Measuring:
    """Load the reference and make the judges; the caller enters its progress, and closes its scorers at the end.

    Args:
        inputs: the policies and what they are compared on.
        settings: of the evaluation.
        device: where.
        further: answers to each prompt that the caller draws besides those of `measured_policies`.

    Raises:
        RlhfError: one of them cannot be loaded.
    """
    readers = _readers(settings, device)
    reference = _loaded(inputs.reference, settings, device)
    prompts = prepare_prompts(inputs.prompts, reference.tokenizer, **settings.prompts.fitting).items
    scorers = make_scorers(
        settings.rewards,
        inputs.reward_model,
        reference.tokenizer,
        dtype=compute_dtype(settings.precision, device),
        device=device,
        given=inputs.judges,
    )
    human = _human(prompts, settings, reference)
    return Measuring(
        settings=settings,
        reference=reference,
        readers=readers,
        scorers=scorers,
        human=human,
        answering=Answering(settings.engine),
        progress=Progress(work(settings, list(inputs.policies), len(prompts), further), "evaluate"),
    )


def measured_policies(
    inputs: ComparisonInputs, measuring: Measuring, device: torch.device, output_dir: Path | None
) -> dict[str, PolicyGenerations]:
    """Let every policy answer, and measure its answers; write them to `output_dir` if given.

    Raises:
        RlhfError: a policy cannot be loaded, or cannot be compared with the reference.
    """
    settings, reference = measuring.settings, measuring.reference
    generations = {}
    for name, given in inputs.policies.items():
        print(f"{name}: answering", flush=True)
        policy = reference if given == inputs.reference else _loaded(given, settings, device)
        _check_tokenizers(name, policy, reference)
        prompts = _prompts(inputs, settings, policy)
        fix_factors(reference, prompts, settings.decoding)
        answered = measuring.answered(policy, prompts)
        if settings.decoding.told is not None:
            print(f"{name}: {settings.decoding.told}; the KL is measured on these answers", flush=True)
        generations[name] = _written(name, measuring, policy, answered, output_dir)
        section = settings.best_of
        if section is not None and section.policy == name:
            best = f"{name}.best_of_{section.n}"
            print(f"{best}: {section.judge} chooses among {section.n} answers to each prompt", flush=True)
            answered = measuring.best(policy, prompts, section)
            generations[best] = _written(best, measuring, policy, answered, output_dir, section.n)
    return generations


def _written(
    name: str,
    measuring: Measuring,
    policy: Policy,
    answered: Answered,
    output_dir: Path | None,
    best_of: int | None = None,
) -> PolicyGenerations:
    """Measure answers, and write them: before the judges read them, and again with what the judges said."""
    rows = response_rows(answered.prompts, answered.responses)
    if output_dir is not None:
        write_output(output_dir / f"{name}.jsonl", json_lines(rows))
    measured = measuring.measured(policy, answered, best_of)
    if output_dir is not None and measured.kl is not None:
        write_output(output_dir / f"{name}.jsonl", json_lines(judged_rows(rows, measured.kl, measured.scores)))
    measuring.progress.advance(len(rows), rows)
    return measured


def _compared(
    judge: ChatJudge, generations: Mapping[str, PolicyGenerations], progress: Progress
) -> dict[Pair, Compared]:
    """Let a judge of pairs compare the policies."""
    compared = {}
    for ours, theirs in pairs_of(list(generations), judge.pairs):
        print(f"{judge.name}: comparing {ours} and {theirs}", flush=True)
        first, second = generations[ours], generations[theirs]
        compared[ours, theirs] = judge.compare(first.requests, first.answers, second.answers)
        progress.advance(len(first.answers))
    return compared


def _check_best_of(inputs: ComparisonInputs, settings: EvaluateSettings) -> None:
    section = settings.best_of
    if section is None:
        return
    if section.policy not in inputs.policies:
        raise ConfigError(f"best_of.policy: {section.policy!r} is none of the policies: {', '.join(inputs.policies)}")
    gold = settings.gold
    known = {GOLD: gold is not None, EMBEDDING: gold is not None and gold.embeddings is not None}
    known |= {PROXY: inputs.reward_model is not None, **dict.fromkeys(settings.rewards, True)}
    if not known.get(section.chooser, False):
        there = [name for name, is_there in known.items() if is_there]
        raise ConfigError(
            f"best_of.judge: {section.judge!r} is no judge of this comparison that scores single responses; there are "
            f"{', '.join(there) or 'none'} - name one of them, or set reward_model"
        )


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


def _human(prompts: Sequence[Prompt], settings: EvaluateSettings, reference: Policy) -> HumanTexts | None:
    """Return what people wrote; None where there is no human text."""
    others = labelled_texts(settings.gold.heldout, settings.gold.limit)[0] if settings.gold else []
    most = settings.decoding.max_new_tokens
    found = human_texts(prompts, settings.human_column, others, reference, max_new_tokens=most, seed=settings.seed)
    if found is not None:
        source = f"column {settings.human_column}" if found.same_prompts else "gold.heldout"
        print(f"human text: {len(found.responses)} texts of {source}, at most {most} tokens", flush=True)
    return found


def _loaded(given: Policy | str, settings: EvaluateSettings, device: torch.device) -> Policy:
    if isinstance(given, Policy):
        return given
    return load_policy(given, compute_dtype(settings.precision, device), device, settings.chat)


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
    return [*config.policies.values(), config.prompts.path, *(path for path in optional if path), *judge_inputs(config)]


def judge_inputs(settings: EvaluateSettings) -> list[str]:
    """Return the files and models that determine the verdicts of the judges, the reward model aside."""
    return [*settings.judge_inputs, *reward_inputs(list(settings.rewards.values()))]
