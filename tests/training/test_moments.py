"""Tests of rlhf.training.moments: codes, the update beside torch's AdamW, and what a checkpoint holds."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlhf.training import moments
from rlhf.training.moments import (
    BLOCK,
    LARGEST,
    AdamW,
    _fractions,
    blank_state,
    forms_of_state,
    in_8_bits,
    read_back,
    rounded,
)
from rlhf.training.storage.schema import TensorForm

SIGNS = pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _again(values: Tensor, *, signed: bool) -> Tensor:
    codes, largest = rounded(values, signed=signed)
    name = "exp_avg" if signed else "exp_avg_sq"
    return read_back({name: codes, name + LARGEST: largest}, name)


@SIGNS
def test_fractions_are_256_in_order_and_hold_0_and_1(signed: bool) -> None:
    found = _fractions(signed=signed)
    assert len(found) == 256 and bool((found.diff() > 0).all())
    assert float(found[-1]) == 1.0 and 0.0 in found.tolist()
    if signed:  # 1 alone has no counterpart
        assert torch.equal(found[:-1], -found[:-1].flip(0))
    else:
        assert float(found[0]) == 0.0
    # The decade below 1 in the most parts: 64 of them, or 128.
    assert int((found > 0.1).sum()) - 1 == (64 if signed else 128)
    assert float(found[found > 0].min()) == pytest.approx(0.55e-6 if signed else 0.325e-6)


@SIGNS
def test_a_number_comes_back_within_half_a_part_of_its_decade(signed: bool) -> None:
    """Widest in the decade below 1: 0.9 / 64 signed, 0.9 / 128 unsigned, and 0.9 / 64 below -1's nearest."""
    values = _random(3 * BLOCK + 17) * torch.logspace(-3, 3, 3 * BLOCK + 17)
    values = values if signed else values.square()
    found = _again(values, signed=signed)
    for block in range(4):
        here = slice(block * BLOCK, (block + 1) * BLOCK)
        largest = float(values[here].abs().max())
        assert float((found[here] - values[here]).abs().max()) <= largest * 0.45 / (64 if signed else 128) * 1.001
        assert float(found[here].abs().max()) == pytest.approx(largest, rel=0.0071)


@SIGNS
def test_small_numbers_of_a_block_come_back_beside_large_ones(signed: bool) -> None:
    """A fraction of 1e-4 has a decade of 8 parts (16), so it is off by at most a half of 0.9 / 8 of 1e-3."""
    values = torch.full((BLOCK,), 3e-4)
    values[7] = 1.0
    found = _again(values, signed=signed)
    assert float((found - values).abs().max()) <= 0.45e-3 / (8 if signed else 16)


@SIGNS
def test_zeros_stay_zeros(signed: bool) -> None:
    assert not bool(_again(torch.zeros(300), signed=signed).any())
    name = "exp_avg" if signed else "exp_avg_sq"
    blank = {key: each.view(-1) for key, each in blank_state(TensorForm((20, 300), torch.float32), narrow=True).items()}
    assert len(read_back(blank, name)) == 6000 and not bool(read_back(blank, name).any())


def _groups(weight: nn.Parameter) -> list[dict[str, Any]]:
    return [{"params": [weight], "lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}]


def test_the_first_step_is_that_of_torch_and_moments_are_rounded_after_it() -> None:
    """Nothing has been rounded before the first step, so it differs by float32 roundings alone."""
    narrow, plain = (nn.Parameter(_random(80, 100)) for _ in range(2))
    ours, theirs = AdamW(_groups(narrow), [narrow], fused=True), torch.optim.AdamW(_groups(plain), fused=True)
    narrow.grad, plain.grad = _random(80, 100, seed=1), _random(80, 100, seed=1)
    ours.step()
    theirs.step()
    torch.testing.assert_close(narrow, plain, rtol=1e-6, atol=1e-7)
    assert narrow.grad is None
    for moment, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        expected = _again(theirs.state[plain][moment].view(-1), signed=signed)
        state = {name: each.view(-1) for name, each in ours.state[narrow].items() if name != "step"}
        torch.testing.assert_close(read_back(state, moment), expected, rtol=1e-2, atol=1e-5)


def test_parts_of_a_tensor_are_stepped_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for size in (2**22, 2 * BLOCK):
        monkeypatch.setattr(moments, "SLICE", size)
        weight = nn.Parameter(_random(70, 61))
        optimizer = AdamW(_groups(weight), [weight], fused=True)
        for step in range(3):
            weight.grad = _random(70, 61, seed=step)
            optimizer.step()
        found.append([weight.detach(), *optimizer.state[weight].values()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_it_learns_as_torch_does() -> None:
    """Least squares in 4,096 numbers: after 200 steps both have the same loss, a thousandth of the first."""
    inputs, target = _random(256, 64), _random(256, 64) @ _random(64, 64, seed=1)
    losses = []
    for is_narrow in (True, False):
        weight = nn.Parameter(torch.zeros(64, 64))
        optimizer = AdamW(_groups(weight), [weight] if is_narrow else [], fused=True)
        optimizer.param_groups[0].update(lr=0.05, weight_decay=0.0)
        for _ in range(200):
            loss = (inputs @ weight - target).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        losses.append(float(loss))
    first = float(target.square().mean())
    assert losses[0] < first / 1000 and losses[1] < first / 1000


def test_embeddings_vectors_and_small_matrices_keep_float32() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.tied = nn.Embedding(100, 64), nn.Linear(64, 100, bias=False)
            self.tied.weight = self.table.weight
            self.wide, self.small = nn.Linear(64, 64), nn.Linear(4, 4)

    model = Model()
    assert in_8_bits(model, dict(model.named_parameters())) == ["wide.weight"]


def test_the_state_takes_a_quarter() -> None:
    form = TensorForm((100, 1000), torch.float32)
    forms = forms_of_state(form, narrow=True)
    assert {name: (each.shape, each.dtype) for name, each in forms.items()} == {
        "step": ((), torch.float32),
        "exp_avg": ((100, 1000), torch.uint8),
        "exp_avg_largest": ((391,), torch.float32),
        "exp_avg_sq": ((100, 1000), torch.uint8),
        "exp_avg_sq_largest": ((391,), torch.float32),
    }
    assert {name: TensorForm.of(each) for name, each in blank_state(form, narrow=True).items()} == forms
