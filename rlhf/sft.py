"""Stage: behaviour cloning of demonstrations. Left out: packing of several rows into one, label smoothing."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import SftConfig
from rlhf.config.shared import DataSection
from rlhf.data.batching import collate_examples
from rlhf.data.records import Example
from rlhf.data.tokenization import prepare_examples
from rlhf.fetch import resolve
from rlhf.functional.flops import causal_work, training_flops
from rlhf.functional.losses import next_token_loss
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.passes.anatomy import hidden_states
from rlhf.models.passes.head import head_logprobs
from rlhf.models.passes.matrices import model_matrices
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.models.pretrained.tokenizer import load_tokenizer
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


class NextTokenObjective:
    """Negative log-likelihood of the tokens that are learned, a mean over the tokens of the global batch."""

    statistics: tuple[str, ...] = ()

    def __init__(self, lm: PreTrainedModel, examples: Sequence[Example], pad_id: int) -> None:
        self.lm = lm
        self.examples = examples
        self.pad_id = pad_id

    def lengths(self) -> list[int]:
        """Return the tokens of each example."""
        return [len(example.input_ids) for example in self.examples]

    def weight(self, items: Sequence[int]) -> float:
        """Return how many tokens of these examples are learned."""
        return float(sum(sum(self.examples[item].loss_mask) for item in items))

    def loss(self, items: Sequence[int], total_weight: float) -> tuple[Tensor, dict[str, float]]:
        """Return these examples' share of the mean loss over `total_weight` tokens, in nats per token."""
        batch = collate_examples([self.examples[item] for item in items], self.pad_id).to(self.lm.device)
        hidden = hidden_states(self.lm, batch.input_ids)
        rows, columns = batch.loss_mask.nonzero(as_tuple=True)
        logprobs, _ = head_logprobs(self.lm, hidden[rows, columns - 1], batch.input_ids[rows, columns], 1.0)
        return next_token_loss(logprobs, torch.ones_like(logprobs, dtype=torch.bool), num_tokens=total_weight), {}

    def cost(self, items: Sequence[int]) -> tuple[int, dict[str, float]]:
        """Return the examples' tokens, and the operations of a pass `forward` and `backward` over them."""
        work = causal_work([len(self.examples[item].input_ids) for item in items], int(self.weight(items)))
        return work.tokens, training_flops(model_matrices(self.lm, [self.lm.get_output_embeddings()]), work)


def train_sft(config: SftConfig, *, profile: bool = False) -> Path:
    """Train on demonstrations and save the policy; `profile` measures where the time goes.

    Returns:
        The directory of the policy, an ordinary `AutoModelForCausalLM` (or adapter) directory.

    Raises:
        RlhfError: bad data, model, checkpoint or a non-finite loss.
    """
    policy = Path(config.output_dir) / "policy"
    inputs = [config.model.path, config.data.path, *([config.eval_data.path] if config.eval_data else [])]
    mark = fingerprint(config, inputs)
    if completed(config, mark):
        return policy
    with frame(config, mark, profile=profile) as run:
        _train(config, run, policy)
    return policy


def _train(config: SftConfig, run: Frame, policy: Path) -> None:
    source = resolve(config.model.path)
    tokenizer = load_tokenizer(source, trust_remote_code=config.model.trust_remote_code)
    examples = _examples(config, run, config.data, tokenizer)
    heldout = _examples(config, run, config.eval_data, tokenizer) if config.eval_data else []
    run.warn_of_shared(examples, heldout)
    trained = trainable(config.model, partial(load_causal_lm, seed=config.seed), tokenizer)
    trained.model.to(run.device)  # type: ignore[arg-type]  # transformers wraps the method out of its type
    lengths = [section.max_length for section in (config.data, config.eval_data) if section is not None]
    run.choose_factors(max(lengths), policy=trained.model)
    weights = MasterWeights(trained.model, run.dtype)
    pad_id = int(tokenizer.pad_token_id)
    objective, held = (NextTokenObjective(trained.model, items, pad_id) for items in (examples, heldout))
    check_lengths(trained.model, objective.lengths(), config.data)
    if config.eval_data is not None:
        check_lengths(trained.model, held.lengths(), config.eval_data)
    run.measure_machine(trained.model, config.microbatch_tokens)
    train_supervised(
        config,
        run,
        objective,
        weights,
        lambda: heldout_loss(held, config.microbatch_tokens, run),
        name="policy",
        shown=("loss", "eval/loss", "epoch"),
    )
    if run.processes.is_main:
        export(trained, weights, tokenizer, policy)


@torch.no_grad()
def heldout_loss(objective: NextTokenObjective, microbatch_tokens: int, run: Frame) -> dict[str, float]:
    """Return the mean loss in nats per token over held-out examples, and its exponential, the perplexity."""
    if not objective.examples:
        return {}
    total = objective.weight(range(len(objective.examples)))
    cut = token_budget_batches(objective.lengths(), microbatch_tokens)
    local = sum(float(objective.loss(items, total)[0]) for items in cut[run.processes.rank :: run.processes.num])
    loss = run.processes.sums([local])[0]
    return {"eval/loss": loss, "eval/perplexity": math.exp(min(loss, 700.0))}


def _examples(config: SftConfig, run: Frame, section: DataSection, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    rows = load_rows(section)
    prepared = prepare_examples(
        rows,
        tokenizer,
        max_length=section.max_length,
        over_long=section.over_long,
        loss_on=config.loss_on,
        append_eos=config.append_eos,
        on_empty=section.on_empty,
    )
    run.report(describe_rows(section, rows), prepared)
    return prepared.items
