"""The work of the evaluation: every policy answers, and every judge reads the answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from rlhf.config import EvaluateConfig, RunConfig
from rlhf.config.evaluate import EmbeddingsSection, GoldSection
from rlhf.data.tokenization import prepare_prompts
from rlhf.evaluation.judges.human_labels import embedded_texts, is_kept, labelled_texts
from rlhf.forecast.load import Load, decoding, read_once
from rlhf.forecast.origin import classifier_sizes, encoder_sizes, language_sizes, origin_of
from rlhf.forecast.records import LOOKED_AT, looked_at, spread
from rlhf.forecast.responses import response_lengths
from rlhf.functional.flops import ModelMatrices, causal_work, forward_flops, sampling_work
from rlhf.models.passes.matrices import frozen_matrices
from rlhf.models.pretrained.tokenizer import read_tokenizer

FITTED_ROWS = 2800.0
"""Rows a second on which the gold judge is fitted: words are counted and a language model is made of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The prompts of the evaluation, and the responses that are expected."""

    prompts: Sequence[int]
    """[N] tokens of those that were looked at."""
    responses: Sequence[int]
    """[N] tokens."""
    num: int
    """All prompts."""

    def read(self, model: ModelMatrices, *, predicts: bool) -> Load:
        """Return the work of reading prompts and responses once; every token of a response is predicted, or none."""
        lengths = [start + new for start, new in zip(self.prompts, self.responses, strict=True)]
        predictions = sum(self.responses) if predicts else len(lengths)
        return Load(inference=forward_flops(model, causal_work(lengths, predictions)) * self.num / len(lengths))

    def answered(self, model: ModelMatrices, rows: int) -> Load:
        """Return the work of answering."""
        flops = forward_flops(model, sampling_work(self.prompts, self.prompts, self.responses))
        return decoding(flops * self.num / len(self.prompts), min(rows, self.num))


def evaluation_load(config: EvaluateConfig, recipe: RunConfig) -> tuple[Load, PreTrainedModel]:
    """Return the work of the evaluation, and the reference without weights.

    Raises:
        Unknown: a model or data are not on this machine.
        RlhfError: they cannot be used.
    """
    reference = config.reference or next(iter(config.policies.values()))
    origin = origin_of(reference, recipe, "evaluate")
    tokenizer, fitting = origin.tokenizer, config.prompts.fitting
    known = looked_at(config.prompts, lambda source: prepare_prompts(source.rows, tokenizer, **fitting))
    prompts = [len(prompt.ids) for prompt in known.items]
    lm = language_sizes(origin)
    load = Load(seconds=known.seconds) + read_once(lm)
    for name, path in config.policies.items():
        responses = response_lengths(path, prompts, config.decoding, recipe, "evaluate")
        asked = Asked(prompts=prompts, responses=responses, num=known.num * config.samples_per_prompt)
        load += _policy_load(config, path, asked, recipe, _read_by(lm))
        if config.best_of is not None and config.best_of.policy == name:
            more = replace(asked, num=asked.num * (config.best_of.n - 1))  # and the winners' passes: one more policy
            load += _policy_load(config, path, asked, recipe, _read_by(lm))
            load += more.answered(_read_by(lm), config.decoding.batch_rows)
    if config.gold is not None:  # people's texts are judged too
        load += _gold_load(config.gold, recipe) + _judged(config, asked, recipe)
    return load, lm


def _policy_load(config: EvaluateConfig, path: str, asked: Asked, recipe: RunConfig, reference: ModelMatrices) -> Load:
    """Return the work of one policy's answers, and of all judges that read them."""
    lm = language_sizes(origin_of(path, recipe, "evaluate"))
    load = asked.answered(_read_by(lm), config.decoding.batch_rows) + read_once(lm)
    load += asked.read(_read_by(lm), predicts=True)
    if path != (config.reference or next(iter(config.policies.values()))):
        load += asked.read(reference, predicts=True)
    if config.gold is not None:  # people's texts are read by the policy too
        load += replace(asked, num=asked.num // config.samples_per_prompt).read(_read_by(lm), predicts=True)
    if config.reward_model is not None:
        model, heads = classifier_sizes(origin_of(config.reward_model, recipe, "evaluate"))
        load += asked.read(frozen_matrices(model, heads), predicts=False) + read_once(model)
    return load + _judged(config, asked, recipe)


def _judged(config: EvaluateConfig, asked: Asked, recipe: RunConfig) -> Load:
    """Return the work of the judges besides the reward model on one set of answers."""
    load = Load()
    if config.fluency_model is not None:
        judge = language_sizes(origin_of(config.fluency_model, recipe, "evaluate"))
        load += asked.read(_read_by(judge), predicts=True)
    if config.gold is not None and config.gold.embeddings is not None:
        read = asked.read(_encoder(config.gold.embeddings, recipe), predicts=False)
        load += Load(encoding=read.inference)
    return load


def _gold_load(gold: GoldSection, recipe: RunConfig) -> Load:
    """Return the work of making the judges of human texts."""
    load = Load(seconds=len(labelled_texts(gold.train, gold.limit)[0]) / FITTED_ROWS)
    if gold.embeddings is None:
        return load
    train, heldout = embedded_texts(gold, gold.embeddings)
    if is_kept(gold.embeddings, train, heldout):
        return load
    texts, num = spread([*train[0], *heldout[0]], LOOKED_AT)
    origin = origin_of(gold.embeddings.model, recipe, "evaluate")
    lengths = [len(ids) for ids in read_tokenizer(origin.source)(texts)["input_ids"]]
    flops = forward_flops(_encoder(gold.embeddings, recipe), causal_work(lengths, 0))
    return load + Load(encoding=flops * num / len(texts))


def _encoder(embeddings: EmbeddingsSection, recipe: RunConfig) -> ModelMatrices:
    return frozen_matrices(encoder_sizes(origin_of(embeddings.model, recipe, "evaluate")), [])


def _read_by(lm: PreTrainedModel) -> ModelMatrices:
    return frozen_matrices(lm, [lm.get_output_embeddings()])
