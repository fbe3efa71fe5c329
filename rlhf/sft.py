"""Stage: behaviour cloning of demonstrations. Left out: label smoothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.batches import sent
from rlhf.config import SftConfig, SFTSettings
from rlhf.data.batching import collate_examples
from rlhf.data.records import Example, Prepared
from rlhf.data.tokenization import prepare_examples
from rlhf.functional.flops import causal_work, training_flops
from rlhf.functional.losses import next_token_loss
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.passes.anatomy import hidden_states
from rlhf.models.passes.head import head_logprobs
from rlhf.models.passes.matrices import model_matrices
from rlhf.models.passes.packing import packs
from rlhf.models.passes.quantized import Kind
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.stage.frame import Frame
from rlhf.stage.supervised import Learner, Source, run_stage
from rlhf.training.sharding.shares import own_results


def train_sft(config: SftConfig, *, profile: bool = False) -> Path:
    """Train on demonstrations and save the policy; `profile` measures where the time goes.

    Returns:
        The directory of the policy, an ordinary `AutoModelForCausalLM` (or adapter) directory.

    Raises:
        RlhfError: bad data, model, checkpoint or a non-finite loss.
    """
    return run_stage(CloningTask(config), config, profile=profile)


class NextTokenObjective:
    """Negative log-likelihood of the tokens in the loss, averaged over those of the global batch."""

    statistics: tuple[str, ...] = ()

    def __init__(self, lm: PreTrainedModel, examples: Sequence[Example], pad_id: int) -> None:
        self.lm = lm
        self.examples = examples
        self.pad_id = pad_id

    def lengths(self) -> list[int]:
        """Return the tokens of each example."""
        return [len(example.input_ids) for example in self.examples]

    @property
    def packs(self) -> bool:
        """Whether the model computes nothing for padding."""
        return packs(self.lm)

    def weight(self, items: Sequence[int]) -> float:
        """Return how many tokens of these examples are in the loss."""
        return float(sum(sum(self.examples[item].loss_mask) for item in items))

    def loss(self, items: Sequence[int], total_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return these examples' share of the mean loss over `total_weight` tokens, in nats per token."""
        on_host = collate_examples([self.examples[item] for item in items], self.pad_id)
        rows, columns = (sent(places, self.lm.device) for places in on_host.loss_mask.nonzero(as_tuple=True))
        batch = on_host.to(self.lm.device)
        hidden = hidden_states(self.lm, batch.input_ids, batch.attention_mask.sum(1))
        logprobs, _ = head_logprobs(self.lm, hidden[rows, columns - 1], batch.input_ids[rows, columns], 1.0)
        return next_token_loss(logprobs, torch.ones_like(logprobs, dtype=torch.bool), num_tokens=total_weight), {}

    def cost(self, items: Sequence[int]) -> tuple[int, dict[str, float]]:
        """Return the examples' tokens, and the operations of a `forward` and a `backward` pass over them."""
        work = causal_work([len(self.examples[item].input_ids) for item in items], int(self.weight(items)))
        return work.tokens, training_flops(model_matrices(self.lm, [self.lm.get_output_embeddings()]), work)


@torch.no_grad()
def heldout_loss(objective: NextTokenObjective, microbatch_tokens: int, run: Frame) -> dict[str, float]:
    """Return the mean loss in nats per token over held-out examples, and its exponential, the perplexity."""
    if not objective.examples:
        return {}
    total = objective.weight(range(len(objective.examples)))
    cut = token_budget_batches(objective.lengths(), microbatch_tokens, packs=objective.packs)
    local = sum(own_results(run.processes, objective.lm, cut, lambda items: float(objective.loss(items, total)[0])))
    loss = run.processes.sums([local])[0]
    return {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 700.0))}


@dataclass(frozen=True, slots=True)
class CloningTask:
    """The task of SFT: answer as in demonstrations."""

    settings: SFTSettings
    result: ClassVar[str] = "policy"
    kind: ClassVar[str] = "sft"
    shown: ClassVar[tuple[str, ...]] = ("loss", "eval/loss", "epoch")

    def load(
        self, path: str, *, random_init: bool = False, trust_remote_code: bool = False, quantize: Kind | None = None
    ) -> PreTrainedModel:
        """Load a causal language model."""
        return load_causal_lm(
            path,
            random_init=random_init,
            trust_remote_code=trust_remote_code,
            seed=self.settings.seed,
            quantize=quantize,
        )

    def kept_in_float32(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return nothing: logprobs are float32 in any case."""
        return []

    def prepared(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> Prepared[Example]:
        """Turn rows of text, messages, or prompt and completion into examples."""
        return prepare_examples(
            source.rows,
            tokenizer,
            loss_on=self.settings.loss_on,
            append_eos=self.settings.append_eos,
            **source.fitting.fitting,
        )

    def longest(self, items: Sequence[Example]) -> int:
        """Return the tokens of the longest example."""
        return max(len(example.input_ids) for example in items)

    def objective(self, learner: Learner, items: Sequence[Example]) -> NextTokenObjective:
        """Return the loss over examples."""
        return NextTokenObjective(learner.trained.model, items, learner.pad_id)

    def held_out(self, learner: Learner, items: Sequence[Example], run: Frame) -> dict[str, float]:
        """Return loss and perplexity."""
        return heldout_loss(self.objective(learner, items), self.settings.microbatch_tokens, run)
