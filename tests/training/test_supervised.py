import math

import pytest
import torch
from torch import nn

from rlhf.data.records import Example
from rlhf.errors import GuardStop
from rlhf.functional.flops import Work, training_flops
from rlhf.models.passes.matrices import model_matrices
from rlhf.sft import NextTokenObjective
from rlhf.training.batch_plan import BatchPlan
from rlhf.training.optimizer import Optimizer, OptimizerSettings, ParameterGroup
from rlhf.training.processes import Processes
from rlhf.training.sharding.master_weights import MasterWeights
from rlhf.training.sharding.replicated import Replicated
from rlhf.training.supervised import SupervisedSteps
from rlhf.training.telemetry.profile import Profile

# Rows of 4 to 18 tokens of which 1 to 12 are learned: a mean of means would differ from the mean over tokens.
SHAPES = [(3, 1), (6, 12), (2, 7), (9, 2), (4, 4), (1, 9), (5, 1), (2, 3)]


def examples():
    numbers = torch.Generator().manual_seed(5)
    made = []
    for prompt, completion in SHAPES:
        ids = torch.randint(3, 128, (prompt + completion,), generator=numbers).tolist()
        made.append(Example(tuple(ids), (False,) * prompt + (True,) * completion))
    return made


def constant(learning_rate, max_grad_norm):
    """A learning rate that stays, without weight decay."""
    return OptimizerSettings(
        learning_rate=learning_rate,
        schedule="constant",
        warmup_fraction=0.0,
        weight_decay=0.0,
        betas=(0.9, 0.95),
        eps=1e-8,
        max_grad_norm=max_grad_norm,
    )


def steps_of(model, microbatch_tokens, *, pad_id=0, learning_rate=1e-2, seed=0):
    objective = NextTokenObjective(model, examples(), pad_id)
    plan = BatchPlan(objective.lengths(), batch_size=8, microbatch_tokens=microbatch_tokens, seed=seed)
    weights = MasterWeights(model, torch.float32)
    group = ParameterGroup(name="policy", parameters=weights.parameters, settings=constant(learning_rate, 1e9))
    processes = Processes()
    optimizer = Optimizer(weights, [group], 10, processes)
    return SupervisedSteps(objective, plan, optimizer, processes, lambda: {"eval/loss": 1.0})


def loss_and_gradient(steps, monkeypatch):
    seen = {}

    def keep(*_):
        seen.update({name: master.grad.clone() for name, master in steps.optimizer.weights.masters.items()})
        return steps.optimizer.discard()

    monkeypatch.setattr(steps.optimizer, "step", keep)
    return steps.step(0)["loss"], seen


@torch.no_grad()
def slow_loss(model):
    total, count = 0.0, 0
    for example in examples():
        logprobs = model(torch.tensor([example.input_ids])).logits[0].double().log_softmax(-1)
        for place, learned in enumerate(example.loss_mask):
            if learned:
                total -= float(logprobs[place - 1, example.input_ids[place]])
                count += 1
    return total / count


@pytest.mark.parametrize("microbatch_tokens", [1, 30, 60, 10_000])
def test_loss_and_gradient_are_the_same_for_any_microbatch_size(tiny_model, monkeypatch, microbatch_tokens):
    model = tiny_model("llama")
    loss, gradient = loss_and_gradient(steps_of(model, microbatch_tokens), monkeypatch)
    expected_loss, expected = loss_and_gradient(steps_of(tiny_model("llama"), 40), monkeypatch)
    # A sum of n float32 terms errs by at most n * 2**-24 of the sum of their sizes. Here 39 learned tokens meet, and
    # each passes chains of about 100 additions: 140 * 6e-8 = 8e-6 of the largest entry.
    assert loss == pytest.approx(slow_loss(model), rel=1e-5)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, value in gradient.items():
        assert torch.allclose(value, expected[name], rtol=0.0, atol=1e-5 * float(expected[name].abs().max())), name


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_padding_content_does_not_change_loss_or_gradient(tiny_model, monkeypatch, family):
    results = [loss_and_gradient(steps_of(tiny_model(family), 10_000, pad_id=pad), monkeypatch) for pad in (0, 77)]
    assert results[0][0] == results[1][0]
    for name, value in results[0][1].items():
        # The row of the padding's embedding is looked up, and receives a gradient of exactly 0.
        assert torch.equal(value, results[1][1][name]), name


def test_a_step_reports_loss_epoch_rate_and_norm_and_learns(tiny_model):
    steps = steps_of(tiny_model("llama"), 60)
    first = steps.step(0)
    assert set(first) == {"loss", "epoch", "weight", "lr/policy", "grad_norm/policy"}
    assert first["weight"] == sum(completion for _, completion in SHAPES) and first["epoch"] == 1.0
    assert [steps.step(index)["loss"] for index in range(1, 6)][-1] < first["loss"]
    assert steps.evaluate() == {"eval/loss": 1.0}


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_moves(tiny_model):
    model = tiny_model("llama")
    steps = steps_of(model, 60)
    with torch.no_grad():
        model.get_output_embeddings().weight[5] = math.nan
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(GuardStop, match="loss is nan at update 0 - no step was taken"):
        steps.step(0)
    assert steps.optimizer.num_done == 0
    assert all(torch.equal(p.nan_to_num(), before[name].nan_to_num()) for name, p in model.named_parameters())


class DropoutObjective:
    """A loss in which nothing but dropout is random."""

    statistics = ()

    def __init__(self, module):
        self.module = module
        self.losses = []

    def lengths(self):
        return [10] * 8

    def weight(self, items):
        return float(len(items))

    def loss(self, items, total_weight):
        loss = self.module(torch.ones(len(items), 16)).sum() / total_weight
        self.losses.append(float(loss.detach()))
        return loss, {}


def dropout_losses(rank_shares):
    """Return the loss of step 3 as the sum over processes that each see every n-th microbatch."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.Linear(16, 1)).eval()
    total = 0.0
    for rank in range(rank_shares):
        steps = steps_of_module(module)
        share = {"rank": rank, "num": rank_shares, "sums": lambda self, n: list(n), "sharding": Replicated()}
        steps.processes = type("Share", (), share)()
        steps.optimizer.step = lambda *_, optimizer=steps.optimizer: optimizer.discard()
        total += steps.step(3)["loss"]
    return total


def steps_of_module(module):
    objective = DropoutObjective(module)
    weights = MasterWeights(module, torch.float32)
    group = ParameterGroup(name="m", parameters=weights.parameters, settings=constant(1e-2, 1.0))
    plan = BatchPlan(objective.lengths(), batch_size=8, microbatch_tokens=20, seed=0)
    optimizer = Optimizer(weights, [group], 10, Processes())
    return SupervisedSteps(objective, plan, optimizer, Processes(), lambda: {"training": float(module[1].training)})


def test_dropout_follows_from_step_and_microbatch_not_from_history_or_number_of_processes():
    once, again = dropout_losses(1), dropout_losses(1)
    assert once == again
    assert dropout_losses(2) == pytest.approx(once, rel=1e-6)  # four float32 terms in another order


def test_dropout_is_on_in_steps_and_off_in_evaluation():
    steps = steps_of_module(nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.Linear(16, 1)).eval())
    assert steps.step(0)["loss"] != steps.step(1)["loss"]
    assert len(set(steps.objective.losses)) == 8  # two steps of four microbatches, each with noise of its own
    assert steps.evaluate() == {"training": 0.0}


def test_the_cost_of_examples_counts_real_tokens_and_logits_where_something_is_learned(tiny_model):
    model = tiny_model("llama")
    matrices = model_matrices(model, [model.get_output_embeddings()])
    # Examples of 4 and 18 tokens, of which 1 and 12 are learned; tokens attend to 10 + 171.
    expected = training_flops(matrices, Work(tokens=22, pairs=181, predictions=13))
    assert NextTokenObjective(model, examples(), 0).cost([0, 1]) == (22, expected)


def test_the_work_of_a_step_is_that_of_all_its_examples(tiny_model):
    steps = steps_of(tiny_model("llama"), microbatch_tokens=20)
    steps.profile = Profile(steps.processes)
    told = []
    steps.profile.add = lambda tokens, flops: told.append((tokens, flops))
    steps.step(0)
    assert told == [steps.objective.cost(range(len(SHAPES)))]
