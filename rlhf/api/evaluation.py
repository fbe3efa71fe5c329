"""A comparison of policies from Python: `evaluate` runs the same code as `rlhf evaluate`."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.api.data import GivenPrompts, digest_of_items, given_prompts
from rlhf.api.generation import answering
from rlhf.api.judges import OneJudge, given_judges
from rlhf.api.models import GivenTokenizer, Model, check_kind, check_tokenizer, digest_of, name_or_model
from rlhf.api.rewards import classifier_tokenizer
from rlhf.api.trainer import checked_config
from rlhf.config import EvaluateSettings
from rlhf.config.evaluate import check_names
from rlhf.config.reading.loader import save_config
from rlhf.errors import ConfigError
from rlhf.evaluation.assembly import ComparisonInputs, compare_policies, written_files
from rlhf.evaluation.compare import Comparison
from rlhf.evaluation.respond import Policy
from rlhf.fetch import resolve
from rlhf.models.pretrained.adapted import is_adapted
from rlhf.models.pretrained.loading import scalar_head
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.rewards.kinds.model import Loaded
from rlhf.stage.frame import fingerprint_with
from rlhf.stage.supervised import Source
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes
from rlhf.training.storage.fingerprint import content_digest
from rlhf.training.storage.run_directory import RunDirectory


def evaluate(  # noqa: PLR0913 - one argument per part of a comparison
    policies: Mapping[str, Model | Path],
    prompts: GivenPrompts,
    tokenizer: GivenTokenizer = None,
    config: EvaluateSettings | None = None,
    *,
    reference: Model | Path | None = None,
    reward_model: PreTrainedModel | str | Path | None = None,
    judges: Mapping[str, OneJudge] | None = None,
    output_dir: str | Path | None = None,
) -> Comparison:
    """Let policies answer the same held-out prompts, and let every judge score the answers.

    Your models stay as they are: copies of them answer. Under `accelerate launch` the first process does the work, and
    every process returns the comparison.

    Args:
        policies: causal language models or adapters (peft), or names of such, by name; win rates are against the first.
        prompts: texts, lists of messages, or mappings with `prompt`; or the name of a file or data set.
        tokenizer: for policies passed as objects; None loads the one saved with each.
        config: decoding, the gold judge and more; None takes the defaults.
        reference: the model to which the KL is measured; None takes the first policy.
        reward_model: a sequence classifier with one label, or the name of one; None leaves this judge out.
        judges: more judges by name: functions, classifiers, sections or mappings as PPO takes them for rewards, or
            `{"kind": "openai", ...}` for a model that compares two responses.
        output_dir: where comparison.json, summary.md and the responses go; None writes nothing.

    Returns:
        The metrics of each policy, such as `.policies["ppo"].judges["gold"].win_rate`, and tables: `.to_table()`.

    Raises:
        RlhfError: something cannot be loaded or written, or the parts do not fit together.
    """
    settings = checked_config(config or EvaluateSettings(), EvaluateSettings, "policies, prompts, tokenizer, config")
    given = _checked(policies, reference, reward_model)
    check_tokenizer(tokenizer, [*given.policies.values(), given.reference])
    source, processes = given_prompts(prompts, settings.prompts).in_memory(), Processes()
    if not processes.is_main:
        shared: list[Comparison] = processes.gathered([])
        return shared[0]
    directory = None if output_dir is None else Path(output_dir)
    inputs = given.inputs(source, tokenizer, settings, processes.device)
    named = given_judges(judges, settings, _tokenizer_of(inputs.reference))
    digests = [] if directory is None else [*given.digests(source, settings), *named.digests()]
    inputs = replace(inputs, judges=named.copies)
    comparison = _compared_in(directory, digests, inputs, named.settings, processes.device)
    return processes.gathered([comparison])[0]  # type: ignore[no-any-return]  # of the first process


@dataclass(frozen=True, slots=True)
class _Given:
    """Models as the user passed them."""

    policies: dict[str, Model]
    reference: Model
    reward_model: PreTrainedModel | str | None

    def inputs(
        self, source: Source, tokenizer: GivenTokenizer, settings: EvaluateSettings, device: torch.device
    ) -> ComparisonInputs:
        """Return the models: copies of the objects, ready to answer, and resolved names."""
        dtype = compute_dtype(settings.precision, device)
        known: dict[int, Policy] = {}  # a model passed twice is copied once

        def ready(model: Model) -> Policy | str:
            if isinstance(model, str):
                return resolve(model)
            if id(model) not in known:
                known[id(model)] = answering(model, tokenizer, settings, dtype, device)
            return known[id(model)]

        reference = ready(self.reference)
        return ComparisonInputs(
            policies={name: ready(model) for name, model in self.policies.items()},
            reference=reference,
            prompts=source.known_rows,
            prompts_name=source.name,
            reward_model=_judge(self.reward_model, reference),
        )

    def digests(self, source: Source, settings: EvaluateSettings) -> list[str]:
        """Return digests of what determines the result besides the settings."""
        models = [*self.policies.values(), self.reference, *([self.reward_model] if self.reward_model else [])]
        rows = digest_of_items([row.values for row in source.known_rows])
        return [*map(digest_of, models), rows, *(content_digest(resolve(path)) for path in settings.judge_inputs)]


def _checked(policies: object, reference: object, reward_model: object) -> _Given:
    if not isinstance(policies, Mapping) or not policies:
        raise ConfigError(
            f'policies: expected a mapping such as {{"sft": model, "ppo": "path/to/policy"}}, found '
            f"{'an empty one' if isinstance(policies, Mapping) else type(policies).__name__}"
        )
    try:
        check_names(map(str, policies))
    except ValueError as problem:
        raise ConfigError(str(problem)) from None
    models = {str(name): name_or_model(model) for name, model in policies.items()}
    for name, model in models.items():
        check_kind(f"policies.{name}", model)
    other = next(iter(models.values())) if reference is None else name_or_model(reference)
    check_kind("reference", other)
    return _Given(models, other, _checked_judge(name_or_model(reward_model)))


def _checked_judge(model: Any) -> PreTrainedModel | str | None:
    if model is None or isinstance(model, str):
        return model
    if not isinstance(model, PreTrainedModel):
        fix = " - merge an adapter first (merge_and_unload)" if is_adapted(model) else ""
        raise ConfigError(
            f"reward_model: expected a sequence classifier of transformers or a name, found {type(model).__name__}{fix}"
        )
    scalar_head(model)
    if model.config.num_labels != 1:
        raise ConfigError(f"reward_model: a reward model needs 1 label, found {model.config.num_labels}")
    return model


def _judge(model: PreTrainedModel | str | None, reference: Policy | str) -> Loaded | str | None:
    if model is None or isinstance(model, str):
        return model
    tokenizer = classifier_tokenizer(model, None, _tokenizer_of(reference), "reward_model")
    return Loaded(copy.deepcopy(model), tokenizer)


def _tokenizer_of(policy: Policy | str) -> PreTrainedTokenizerBase:
    return policy.tokenizer if isinstance(policy, Policy) else load_tokenizer(policy)


def _compared_in(
    directory: Path | None,
    digests: Sequence[str],
    inputs: ComparisonInputs,
    settings: EvaluateSettings,
    device: torch.device,
) -> Comparison:
    if directory is None:
        return compare_policies(inputs, settings, device)
    with RunDirectory(directory, fingerprint=fingerprint_with(settings, digests)) as run:
        save_config(settings, directory / "config.yaml")
        comparison = compare_policies(inputs, settings, device, directory)
        run.mark_complete(written_files(directory, comparison.policies))
    return comparison
