"""Stage: a scalar model of preferences (Bradley-Terry). Left out: rankings of more than two, ensembles."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlhf.config import RewardModelConfig
from rlhf.config.shared import DataSection
from rlhf.data.batching import collate_examples, collate_pairs
from rlhf.data.records import Pair
from rlhf.data.tokenization import prepare_examples, prepare_pairs
from rlhf.data.unfinished import with_unfinished
from rlhf.fetch import resolve
from rlhf.functional.calibration import expected_calibration_error
from rlhf.functional.flops import causal_work, training_flops
from rlhf.functional.losses import preference_loss
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.passes.matrices import model_matrices
from rlhf.models.pretrained.loading import load_scalar_lm, scalar_head
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.models.scalar import ScalarModel
from rlhf.stage import (
    Frame,
    check_lengths,
    completed,
    describe_rows,
    export,
    fingerprint,
    frame,
    load_rows,
    train_supervised,
    trainable,
)
from rlhf.training.optimizer import MasterWeights


class PreferenceObjective:
    """The Bradley-Terry loss with an optional centring term, a mean over the pairs of the global batch."""

    statistics: tuple[str, ...] = ("accuracy", "margin")

    def __init__(self, model: ScalarModel, pairs: Sequence[Pair], pad_id: int, centring_coef: float) -> None:
        self.model = model
        self.pairs = pairs
        self.pad_id = pad_id
        self.centring_coef = centring_coef

    def lengths(self) -> list[int]:
        """Return the padded tokens that each pair costs."""
        return [2 * max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in self.pairs]

    def weight(self, items: Sequence[int]) -> float:
        """Return the number of pairs."""
        return float(len(items))

    def scores(self, items: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return [B] chosen scores, [B] rejected scores and [B] margins, from one forward pass."""
        batch = collate_pairs([self.pairs[item] for item in items], self.pad_id).to(self.model.classifier.device)
        width = max(batch.chosen_ids.shape[1], batch.rejected_ids.shape[1])
        ids = torch.cat([_widened(batch.chosen_ids, width), _widened(batch.rejected_ids, width)])
        mask = torch.cat([_widened(batch.chosen_mask, width), _widened(batch.rejected_mask, width)])
        chosen, rejected = self.model(ids, mask).chunk(2)
        return chosen, rejected, batch.margins

    def loss(self, items: Sequence[int], total_weight: float) -> tuple[Tensor, dict[str, float]]:
        """Return these pairs' share of the mean loss over `total_weight` pairs, in nats per pair."""
        chosen, rejected, margins = self.scores(items)
        loss = preference_loss(chosen, rejected, margins) + self.centring_coef * (chosen + rejected).square().mean()
        lead = (chosen - rejected).detach()
        statistics = {"accuracy": float((lead > 0).sum()), "margin": float(lead.sum())}
        return loss * (len(items) / total_weight), statistics

    def cost(self, items: Sequence[int]) -> tuple[int, dict[str, float]]:
        """Return the pairs' tokens, and the operations of a pass `forward` and `backward` over them."""
        pairs, classifier = [self.pairs[item] for item in items], self.model.classifier
        lengths = [len(ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
        work = causal_work(lengths, len(lengths))
        return work.tokens, training_flops(model_matrices(classifier, [scalar_head(classifier)]), work)


def train_reward_model(config: RewardModelConfig, *, profile: bool = False) -> Path:
    """Train on preference pairs, set the mean score of demonstrations to 0, and save the model.

    `profile` measures where the time goes.

    Returns:
        The directory of the model, an `AutoModelForSequenceClassification` with one label; `score_mean` in its
        config.json is what rlhf subtracts from the raw score.

    Raises:
        RlhfError: bad data, model, checkpoint or a non-finite loss.
    """
    target = Path(config.output_dir) / "reward_model"
    sections = [section for section in (config.data, config.eval_data, config.demonstrations) if section is not None]
    mark = fingerprint(config, [config.model.path, *(section.path for section in sections)])
    if completed(config, mark):
        return target
    with frame(config, mark, profile=profile) as run:
        _train(config, run, target)
    return target


def _train(config: RewardModelConfig, run: Frame, target: Path) -> None:
    source = resolve(config.model.path)
    tokenizer = load_tokenizer(source, trust_remote_code=config.model.trust_remote_code)
    pad_id = int(tokenizer.pad_token_id)
    human = _pairs(config, run, config.data, tokenizer)
    heldout = _pairs(config, run, config.eval_data, tokenizer) if config.eval_data else []
    run.warn_of_shared(human, heldout)
    pairs = with_unfinished(human, config.unfinished_fraction, config.seed)
    trained = trainable(config.model, partial(load_scalar_lm, new_head=True, seed=config.seed), tokenizer)
    model = ScalarModel(trained.model).to(run.device)
    model.score_mean = 0.0  # that of an earlier reward model belongs to its head
    weights = MasterWeights(trained.model, run.dtype, keep_float32=[scalar_head(trained.model)])
    objective = PreferenceObjective(model, pairs, pad_id, config.centring_coef)
    held = PreferenceObjective(model, heldout, pad_id, 0.0)
    _check_lengths(config, model, objective, held)
    run.measure_machine(trained.model, config.microbatch_tokens)
    train_supervised(
        config,
        run,
        objective,
        weights,
        lambda: heldout_scores(held, config.microbatch_tokens, run),
        name="reward_model",
        shown=("loss", "accuracy", "eval/accuracy"),
    )
    if config.demonstrations is not None:
        model.score_mean = _mean_over_demonstrations(config, run, model, config.demonstrations, tokenizer)
        run.processes.say(f"mean score of demonstrations before centring: {model.score_mean:+.3f}")
    if run.processes.is_main:
        export(trained, weights, tokenizer, target)


@torch.no_grad()
def heldout_scores(objective: PreferenceObjective, microbatch_tokens: int, run: Frame) -> dict[str, float]:
    """Return accuracy, loss, mean margin and expected calibration error over held-out pairs."""
    if not objective.pairs:
        return {}
    cut = token_budget_batches(objective.lengths(), microbatch_tokens)
    leads = []
    for items in cut[run.processes.rank :: run.processes.num]:
        chosen, rejected, _ = objective.scores(items)
        leads += [float(lead) for lead in chosen - rejected]
    margins = torch.tensor(run.processes.gathered(leads))
    zeros = torch.zeros_like(margins)
    return {
        "eval/accuracy": float((margins > 0).float().mean()),
        "eval/loss": float(preference_loss(margins, zeros, zeros)),
        "eval/margin": float(margins.mean()),
        "eval/calibration_error": float(expected_calibration_error(margins)),
    }


@torch.no_grad()
def _mean_over_demonstrations(
    config: RewardModelConfig, run: Frame, model: ScalarModel, section: DataSection, tokenizer: PreTrainedTokenizerBase
) -> float:
    rows = load_rows(section)
    prepared = prepare_examples(
        rows,
        tokenizer,
        max_length=section.max_length,
        over_long=section.over_long,
        append_eos=config.append_eos,
        on_empty=section.on_empty,
    )
    run.report(describe_rows(section, rows), prepared)
    lengths = [len(example.input_ids) for example in prepared.items]
    check_lengths(model.classifier, lengths, section)
    total = 0.0
    for items in token_budget_batches(lengths, config.microbatch_tokens)[run.processes.rank :: run.processes.num]:
        batch = collate_examples([prepared.items[item] for item in items], int(tokenizer.pad_token_id)).to(run.device)
        total += float(model(batch.input_ids, batch.attention_mask).sum())
    return run.processes.sums([total])[0] / len(lengths)


def _check_lengths(
    config: RewardModelConfig, model: ScalarModel, objective: PreferenceObjective, held: PreferenceObjective
) -> None:
    for section, part in ((config.data, objective), (config.eval_data, held)):
        if section is not None:
            check_lengths(model.classifier, [length // 2 for length in part.lengths()], section)


def _pairs(
    config: RewardModelConfig, run: Frame, section: DataSection, tokenizer: PreTrainedTokenizerBase
) -> list[Pair]:
    rows = load_rows(section)
    prepared = prepare_pairs(
        rows,
        tokenizer,
        max_length=section.max_length,
        over_long=section.over_long,
        append_eos=config.append_eos,
        on_empty=section.on_empty,
    )
    run.report(describe_rows(section, rows), prepared)
    return prepared.items


def _widened(tensor: Tensor, width: int) -> Tensor:
    return nn.functional.pad(tensor, (0, width - tensor.shape[1]))
