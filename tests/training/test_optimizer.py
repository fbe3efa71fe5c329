import math

import pytest
import torch
from torch import nn

from rlhf.errors import GuardStop
from rlhf.training.optimizer import Optimizer, OptimizerSettings, ParameterGroup
from rlhf.training.processes import Processes
from rlhf.training.sharding.master_weights import MasterWeights
from rlhf.training.storage.schema import forms_of

NUM_UPDATES = 20


def settings(**changes):
    values = {"learning_rate": 1e-2, "schedule": "constant", "warmup_fraction": 0.0, "weight_decay": 0.0}
    values |= {"betas": (0.9, 0.95), "eps": 1e-8, "max_grad_norm": 1e9}
    return OptimizerSettings(**(values | changes))


def network(seed=0, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 3))


def optimizer_of(module, dtype=torch.float32, num_updates=NUM_UPDATES, **changes):
    weights = MasterWeights(module, dtype)
    group = ParameterGroup(name="policy", parameters=weights.parameters, settings=settings(**changes))
    return Optimizer(weights, [group], num_updates, Processes())


def adam_groups(module, weight_decay):
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim == 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def inputs(step, rows=6):
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(step))


def loss_of(module, step):
    x = inputs(step).to(next(module.parameters()).dtype)
    return (module(x).float() - 1.0).square().mean()


def copies(optimizer):
    return {name: master.detach().clone() for name, master in optimizer.weights.masters.items()}


def test_small_steps_survive_bfloat16_because_masters_are_float32():
    # bfloat16 has steps of 2**-8 = 0.0039 below 1, and half of it is far above a step of 1e-4.
    module, plain = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    for each in (module, plain):
        nn.init.ones_(each.weight)
    ours = optimizer_of(module, torch.bfloat16, num_updates=100, learning_rate=1e-4)
    theirs = torch.optim.AdamW(plain.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(100):
        module.weight.sum().backward()
        ours.step()
        plain.weight.sum().backward()
        theirs.step()
        theirs.zero_grad()
    assert plain.weight.item() == 1.0
    assert ours.weights.masters["weight"].item() == pytest.approx(1.0 - 100 * 1e-4, abs=1e-5)
    assert module.weight.dtype == torch.bfloat16
    assert module.weight.item() == torch.tensor(0.99).bfloat16().item()


def test_equals_torch_adamw_on_a_float32_module_number_for_number():
    module, reference = network(), network()
    ours = optimizer_of(module, weight_decay=0.1)
    theirs = torch.optim.AdamW(adam_groups(reference, 0.1), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=True)
    for step in range(5):
        loss_of(module, step).backward()
        report = ours.step()
        loss_of(reference, step).backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1e9)
        theirs.step()
        theirs.zero_grad()
        assert report == {"lr/policy": 1e-2, "grad_norm/policy": pytest.approx(float(norm), rel=1e-6)}
    for mine, other in zip(module.parameters(), reference.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_fused_kernel_takes_the_steps_of_the_plain_one():
    """The same gradients, so that only the arithmetic of a step differs.

    A step rounds a weight three times (decay, update, their difference), and the update itself about 16 times (the
    moments, a root, a quotient) at 1.2 times the rate of 1e-2 at most: 3.2 roundings of a weight of 1 a step. A moment
    is rounded three times a step. Each side is off by half an eps a rounding, the two are apart by one.
    """
    num_steps, eps = 5, torch.finfo(torch.float32).eps
    module, plain = network(), network()
    ours = optimizer_of(module, weight_decay=0.1)
    assert ours._is_fused
    theirs = torch.optim.AdamW(
        adam_groups(plain, 0.1), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=False, foreach=False
    )
    largest = 0.0
    for step in range(num_steps):
        generator = torch.Generator().manual_seed(step)
        for mine, other in zip(module.parameters(), plain.parameters(), strict=True):
            other.grad = torch.randn(mine.shape, generator=generator)
            mine.grad = other.grad.clone()
            largest = max(largest, float(mine.grad.abs().max()))
        ours.step()
        theirs.step()
    moments = ours.tensors()
    for (name, mine), other in zip(module.named_parameters(), plain.parameters(), strict=True):
        size = max(1.0, float(other.detach().abs().max()))
        torch.testing.assert_close(mine, other, rtol=0, atol=num_steps * 3.2 * eps * size)
        for moment, power in (("exp_avg", 1), ("exp_avg_sq", 2)):
            expected = theirs.state[other][moment]
            atol = num_steps * 3 * eps * largest**power
            torch.testing.assert_close(moments[f"{moment}.{name}"], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_several_microbatches_add_up_on_the_float32_master(dtype):
    module = network()
    optimizer = optimizer_of(module, dtype)
    expected = {name: torch.zeros_like(master) for name, master in optimizer.weights.masters.items()}
    for step in range(3):
        parts = torch.autograd.grad(loss_of(module, step), list(module.parameters()))
        for name, part in zip(expected, parts, strict=True):
            expected[name] += part.float()
    for step in range(3):
        loss_of(module, step).backward()
    for name, master in optimizer.weights.masters.items():
        assert master.grad.dtype == torch.float32
        assert torch.allclose(master.grad, expected[name], rtol=1e-6, atol=1e-8)
    if dtype == torch.bfloat16:
        assert all(parameter.grad is None for parameter in module.parameters())


def test_clipping_scales_the_gradient_to_the_limit_and_reports_the_norm_before(monkeypatch):
    module = nn.Linear(2, 1, bias=False)
    optimizer = optimizer_of(module, max_grad_norm=1.0)
    seen = []
    monkeypatch.setattr(optimizer._adam, "step", lambda: seen.append(module.weight.grad.clone()))
    (module.weight * torch.tensor([[3.0, 4.0]])).sum().backward()
    assert optimizer.step()["grad_norm/policy"] == pytest.approx(5.0)
    # clip_grad_norm_ divides by norm + 1e-6.
    assert torch.allclose(seen[0], torch.tensor([[0.6, 0.8]]), rtol=1e-5)


def test_each_group_is_clipped_on_its_own_norm_and_has_its_own_rate(monkeypatch):
    module = nn.ModuleDict({"a": nn.Linear(2, 1, bias=False), "b": nn.Linear(2, 1, bias=False)})
    weights = MasterWeights(module, torch.float32)
    groups = [
        ParameterGroup(
            name=name,
            parameters={f"{name}.weight": module[name].weight},
            settings=settings(learning_rate=rate, max_grad_norm=1.0),
        )
        for name, rate in (("a", 0.1), ("b", 0.2))
    ]
    optimizer = Optimizer(weights, groups, NUM_UPDATES, Processes())
    seen = {}
    monkeypatch.setattr(
        optimizer._adam, "step", lambda: seen.update({name: module[name].weight.grad.clone() for name in "ab"})
    )
    (module["a"].weight * torch.tensor([[3.0, 4.0]])).sum().backward()
    (module["b"].weight * torch.tensor([[0.0, 0.5]])).sum().backward()
    report = optimizer.step()
    assert report == pytest.approx({"lr/a": 0.1, "grad_norm/a": 5.0, "lr/b": 0.2, "grad_norm/b": 0.5})
    assert torch.allclose(seen["a"], torch.tensor([[0.6, 0.8]]), rtol=1e-5)
    assert torch.equal(seen["b"], torch.tensor([[0.0, 0.5]]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_the_run_and_nothing_moves(bad):
    module = network()
    optimizer = optimizer_of(module)
    loss_of(module, 0).backward()
    optimizer.step()
    before, moments = copies(optimizer), {name: t.clone() for name, t in optimizer.tensors().items()}
    (loss_of(module, 1) * bad).backward()
    with pytest.raises(GuardStop, match="gradient norm of policy is (nan|inf) at update 1 - no step was taken") as stop:
        optimizer.step()
    assert stop.value.exit_status == 6
    assert optimizer.num_done == 1
    assert all(torch.equal(master, before[name]) for name, master in optimizer.weights.masters.items())
    assert all(torch.equal(tensor, moments[name]) for name, tensor in optimizer.tensors().items())


def test_weight_decay_shrinks_matrices_and_leaves_norms_and_biases():
    module = network()
    optimizer = optimizer_of(module, weight_decay=0.5)
    before = copies(optimizer)
    optimizer.step()  # no gradient: only the decay moves anything
    for name, master in optimizer.weights.masters.items():
        factor = 1.0 - 1e-2 * 0.5 if master.ndim > 1 else 1.0
        assert torch.allclose(master, before[name] * factor, rtol=1e-6), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_parameters_stay_as_they_are(dtype):
    module = network()
    module[0].requires_grad_(False)
    exact = module[0].weight.detach().clone()
    optimizer = optimizer_of(module, dtype, weight_decay=0.5)
    assert set(optimizer.weights.masters) == {"1.weight", "1.bias", "2.weight", "2.bias"}
    loss_of(module, 0).backward()
    optimizer.step()
    assert torch.equal(module[0].weight, exact.to(dtype))
    with optimizer.weights.in_full_precision():
        assert torch.equal(module[0].weight, exact)


@pytest.mark.parametrize("num_done", [0, 3])
@pytest.mark.parametrize("moments", ["float32", "8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_state_gives_the_same_next_step_bit_for_bit(dtype, moments, num_done):
    module, other = network(width=1100), network(seed=1, width=1100)
    how = {"schedule": "cosine", "moments": moments}
    first, second = optimizer_of(module, dtype, **how), optimizer_of(other, dtype, **how)
    for step in range(num_done):
        loss_of(module, step).backward()
        first.step()
    saved = first.tensors()
    assert forms_of(saved) == first.forms()
    narrow = {name for name, tensor in saved.items() if tensor.dtype == torch.uint8}
    assert narrow == ({"exp_avg.0.weight", "exp_avg_sq.0.weight"} if moments == "8bit" else set())
    second.weights.load(copies(first))
    second.load({name: tensor.clone() for name, tensor in first.tensors().items()}, first.num_done)
    reports = []
    for each in (first, second):
        loss_of(each.weights.module, 3).backward()
        reports.append(each.step())
    assert reports[0] == reports[1]
    for name, master in first.weights.masters.items():
        assert torch.equal(master, second.weights.masters[name])
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine.dtype == dtype


def test_loading_does_not_share_memory_with_what_was_loaded():
    optimizer, source = optimizer_of(network()), optimizer_of(network())
    loss_of(source.weights.module, 0).backward()
    source.step()
    saved = source.tensors()
    before = {name: tensor.clone() for name, tensor in saved.items()}
    optimizer.load(saved, 1)
    loss_of(optimizer.weights.module, 1).backward()
    optimizer.step()
    assert all(torch.equal(saved[name], before[name]) for name in saved)


def test_full_precision_shows_the_masters_and_restores_the_rounded_weights():
    module = network()
    optimizer = optimizer_of(module, torch.bfloat16, learning_rate=1e-5)
    loss_of(module, 0).backward()
    optimizer.step()
    rounded = {name: p.detach().clone() for name, p in module.named_parameters()}
    with optimizer.weights.in_full_precision():
        for name, parameter in module.named_parameters():
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, optimizer.weights.masters[name])
    for name, parameter in module.named_parameters():
        assert parameter.dtype == torch.bfloat16 and torch.equal(parameter, rounded[name])
    loss_of(module, 1).backward()
    optimizer.step()  # training goes on


def test_parts_that_are_kept_in_float32_are_their_own_masters():
    module = network()
    weights = MasterWeights(module, torch.bfloat16, keep_float32=[module[2]])
    assert weights.masters["2.weight"] is module[2].weight and module[2].weight.dtype == torch.float32
    assert module[0].weight.dtype == torch.bfloat16


def test_the_rate_follows_the_schedule_and_discard_takes_no_step():
    module = network()
    optimizer = optimizer_of(module, num_updates=4, schedule="linear")
    before = copies(optimizer)
    loss_of(module, 0).backward()
    assert optimizer.discard() == {}
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(master, before[name]) for name, master in optimizer.weights.masters.items())
    assert [optimizer.step()["lr/policy"] for _ in range(4)] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
