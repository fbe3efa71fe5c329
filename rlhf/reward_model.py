"""Stage: a scalar model of preferences (Bradley-Terry). Left out: rankings of more than two, ensembles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import RewardModelConfig, RewardSettings
from rlhf.data.batching import collate_examples, collate_pairs
from rlhf.data.records import Example, Pair, Prepared
from rlhf.data.tokenization import prepare_examples, prepare_pairs
from rlhf.data.unfinished import with_unfinished
from rlhf.functional.calibration import expected_calibration_error
from rlhf.functional.flops import causal_work, training_flops
from rlhf.functional.losses import preference_loss
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.passes.matrices import model_matrices
from rlhf.models.passes.packing import packs
from rlhf.models.passes.quantized import Kind
from rlhf.models.pretrained.loading import load_scalar_lm, scalar_head
from rlhf.models.scalar import ScalarModel
from rlhf.stage.frame import Frame
from rlhf.stage.supervised import Learner, Source, check_length, nothing_to_finish, reported, run_stage
from rlhf.training.sharding.shares import own_results


def train_reward_model(config: RewardModelConfig, *, profile: bool = False) -> Path:
    """Train on preference pairs, set the mean score of demonstrations to 0, and save the model.

    `profile` measures where the time goes.

    Returns:
        The directory of the model, an `AutoModelForSequenceClassification` with one label; `score_mean` in its
        config.json is what rlhf subtracts from the raw score.

    Raises:
        RlhfError: bad data, model, checkpoint or a non-finite loss.
    """
    task, section = PreferenceTask(config), config.demonstrations

    def finishing(learner: Learner, run: Frame) -> Callable[[], None]:
        if section is None:
            return nothing_to_finish(learner, run)
        return task.centring(learner, Source.of(section), run)

    return run_stage(task, config, finishing=finishing, profile=profile)


class PreferenceObjective:
    """The Bradley-Terry loss with an optional centring term, averaged over the pairs of the global batch."""

    statistics: tuple[str, ...] = ("accuracy", "margin")

    def __init__(self, model: ScalarModel, pairs: Sequence[Pair], pad_id: int, centring_coef: float) -> None:
        self.model = model
        self.pairs = pairs
        self.pad_id = pad_id
        self.centring_coef = centring_coef

    def lengths(self) -> list[int]:
        """Return the tokens that each pair costs: with padding, unless the model packs."""
        lengths = [(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in self.pairs]
        return [sum(both) if self.packs else 2 * max(both) for both in lengths]

    @property
    def packs(self) -> bool:
        """Whether the model computes nothing for padding."""
        return packs(self.model.classifier)

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

    def loss(self, items: Sequence[int], total_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return these pairs' share of the mean loss over `total_weight` pairs, in nats per pair."""
        chosen, rejected, margins = self.scores(items)
        loss = preference_loss(chosen, rejected, margins) + self.centring_coef * (chosen + rejected).square().mean()
        lead = (chosen - rejected).detach()
        statistics = {"accuracy": (lead > 0).sum(), "margin": lead.sum()}
        return loss * (len(items) / total_weight), statistics

    def cost(self, items: Sequence[int]) -> tuple[int, dict[str, float]]:
        """Return the pairs' tokens, and the operations of a `forward` and a `backward` pass over them."""
        pairs, classifier = [self.pairs[item] for item in items], self.model.classifier
        lengths = [len(ids) for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]
        work = causal_work(lengths, len(lengths))
        return work.tokens, training_flops(model_matrices(classifier, [scalar_head(classifier)]), work)


@torch.no_grad()
def heldout_scores(objective: PreferenceObjective, microbatch_tokens: int, run: Frame) -> dict[str, float]:
    """Return accuracy, loss, mean margin and expected calibration error over held-out pairs."""
    if not objective.pairs:
        return {}
    cut = token_budget_batches(objective.lengths(), microbatch_tokens, packs=objective.packs)

    def leads(items: Sequence[int]) -> list[float]:
        chosen, rejected, _ = objective.scores(items)
        return [float(lead) for lead in chosen - rejected]

    own = own_results(run.processes, objective.model.classifier, cut, leads)
    margins = torch.tensor(run.processes.gathered([lead for part in own for lead in part]))
    zeros = torch.zeros_like(margins)
    return {
        "eval/accuracy": float((margins > 0).float().mean()),
        "eval/loss": float(preference_loss(margins, zeros, zeros)),
        "eval/margin": float(margins.mean()),
        "eval/calibration_error": float(expected_calibration_error(margins)),
    }


@torch.no_grad()
def centre(learner: Learner, demonstrations: Sequence[Example], microbatch_tokens: int, run: Frame) -> None:
    """Set the mean score of demonstrations to 0: `score_mean` in the model's config becomes their raw mean."""
    model = ScalarModel(learner.trained.model)
    lengths = [len(example.input_ids) for example in demonstrations]
    cut = token_budget_batches(lengths, microbatch_tokens, packs=packs(model.classifier))

    def total_score(items: Sequence[int]) -> float:
        batch = collate_examples([demonstrations[item] for item in items], learner.pad_id).to(run.device)
        return float(model(batch.input_ids, batch.attention_mask).sum())

    total = sum(own_results(run.processes, model.classifier, cut, total_score))
    model.score_mean = run.processes.sums([total])[0] / len(lengths)
    run.processes.say(f"mean score of demonstrations before centring: {model.score_mean:+.3f}")


@dataclass(frozen=True, slots=True)
class PreferenceTask:
    """The task of the reward model: score the chosen text of a pair higher than the rejected one."""

    settings: RewardSettings
    result: ClassVar[str] = "reward_model"
    kind: ClassVar[str] = "reward-model"
    shown: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "eval/accuracy")

    def load(
        self, path: str, *, random_init: bool = False, trust_remote_code: bool = False, quantize: Kind | None = None
    ) -> PreTrainedModel:
        """Load a model with a new scalar head."""
        return load_scalar_lm(
            path,
            random_init=random_init,
            trust_remote_code=trust_remote_code,
            seed=self.settings.seed,
            new_head=True,
            quantize=quantize,
        )

    def kept_in_float32(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the scalar head."""
        return [scalar_head(model)]

    def prepared(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> Prepared[Pair]:
        """Turn rows of chosen and rejected into pairs."""
        return prepare_pairs(source.rows, tokenizer, append_eos=self.settings.append_eos, **source.fitting.fitting)

    def longest(self, items: Sequence[Pair]) -> int:
        """Return the tokens of the longest text."""
        return max(len(ids) for pair in items for ids in (pair.chosen_ids, pair.rejected_ids))

    def objective(self, learner: Learner, items: Sequence[Pair]) -> PreferenceObjective:
        """Return the loss over pairs; in some an unfinished text replaces the rejected one."""
        model = ScalarModel(learner.trained.model)
        model.score_mean = 0.0  # an earlier reward model's mean belongs to its own head
        pairs = with_unfinished(items, self.settings.unfinished_fraction, self.settings.seed)
        return PreferenceObjective(model, pairs, learner.pad_id, self.settings.centring_coef)

    def held_out(self, learner: Learner, items: Sequence[Pair], run: Frame) -> dict[str, float]:
        """Return accuracy, loss, margin and calibration error."""
        objective = PreferenceObjective(ScalarModel(learner.trained.model), items, learner.pad_id, 0.0)
        return heldout_scores(objective, self.settings.microbatch_tokens, run)

    def centring(self, learner: Learner, source: Source, run: Frame) -> Callable[[], None]:
        """Prepare demonstrations, and return the function that centres the scores on them after training.

        Raises:
            RlhfError: a row cannot be used, or exceeds the model's positions.
        """
        prepared = prepare_examples(
            source.rows, learner.tokenizer, append_eos=self.settings.append_eos, **source.fitting.fitting
        )
        examples = reported(prepared, source, run)
        check_length(learner.trained.model, max(len(each.input_ids) for each in examples), source)
        return partial(centre, learner, examples, self.settings.microbatch_tokens, run)


def _widened(tensor: Tensor, width: int) -> Tensor:
    return nn.functional.pad(tensor, (0, width - tensor.shape[1]))
