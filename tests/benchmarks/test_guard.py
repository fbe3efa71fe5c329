import json

import pytest
import torch

import guard as guard_script
from rlhf.ppo.tally import NAMES


@pytest.fixture
def guard():
    return guard_script


SMALL = {"hidden": 32, "blocks": 1, "vocabulary": 488, "rows": 8, "new_tokens": 4, "turns": 1}


@pytest.fixture
def parts(guard, tmp_path):
    return guard.build(tmp_path, guard.Sizes(**SMALL))


@pytest.fixture
def clock(guard, monkeypatch):
    """Seconds that pass when they are told to; a list of one number."""
    now = [0.0]
    monkeypatch.setattr(guard.time, "perf_counter", lambda: now[0])
    return now


def side(clock, seconds, tokens=7):
    """Work that takes these seconds, one after the other."""
    remaining = iter(seconds)

    def work():
        clock[0] += next(remaining)
        return tokens

    return work


def test_the_first_turn_does_not_count_and_medians_are_compared(guard, clock):
    found = guard.compared("sampler", "generate", side(clock, [90, 1, 2, 50]), side(clock, [80, 3, 70, 4]), 3)
    assert (found.ours, found.theirs, found.ratio) == (2, 4, 2.0)


def test_the_sides_take_turns(guard, clock):
    order = []
    guard.compared("sampler", "x", lambda: order.append("ours") or 1, lambda: order.append("theirs") or 1, 2)
    assert order == ["ours", "theirs"] * 3


def test_unequal_work_is_no_comparison(guard, clock):
    with pytest.raises(ValueError, match="we did 7 tokens, generate 8"):
        guard.compared("sampler", "generate", side(clock, [1, 1]), side(clock, [1, 1], tokens=8), 1)


def test_only_a_gross_loss_has_a_verdict(guard, monkeypatch):
    monkeypatch.setattr(guard, "BOUNDS", {"update": 0.6})
    slow, just = (guard.Comparison(name="update", peer="a plain update", ours=10, theirs=t) for t in (5.9, 6.0))
    assert slow.verdict == "guard: our update is 0.59x as fast as a plain update, below 0.6x"
    assert just.verdict is None


def test_the_plain_update_minimises_the_same_loss_as_ours(guard, parts):
    trainer = parts.trainer
    plain = guard.PlainUpdate(guard.as_transformers_has_it(trainer.policy.lm), SMALL["hidden"], trainer.config)
    with torch.no_grad():  # away from the weights that sampled: ratios and values are clipped in part
        for mine, theirs in zip(trainer.policy.lm.parameters(), plain.lm.parameters(), strict=True):
            mine += 0.05 * torch.randn(mine.shape, generator=torch.Generator().manual_seed(mine.numel()))
            theirs.copy_(mine)
        trainer.policy.value_head.linear.weight.fill_(0.1)
        plain.value_head.weight.fill_(0.1)
    experience, _ = guard.experienced(parts)
    with torch.no_grad():
        for mine, theirs in zip(trainer.policy.lm.parameters(), plain.lm.parameters(), strict=True):
            mine += 0.05 * torch.randn(mine.shape, generator=torch.Generator().manual_seed(mine.numel() + 1))
            theirs.copy_(mine)
    tokens = float(experience.rollout.response_mask.sum())
    ours, numbers, _ = trainer.loss(experience, tokens)
    sums = dict(zip(NAMES, numbers.tolist(), strict=True))
    theirs = plain.loss(experience)
    assert sums["clipped"] > 0 and sums["value_clipped"] > 0
    ours.backward()
    theirs.backward()
    # Sums of float32 products in another order, over at most a few hundred terms.
    assert theirs.item() == pytest.approx(ours.item(), rel=1e-5)
    for mine, other in zip(trainer.policy.lm.parameters(), plain.lm.parameters(), strict=True):
        assert torch.allclose(mine.grad, other.grad, rtol=0.0, atol=1e-5 * float(mine.grad.abs().max()))


def test_the_plain_update_takes_every_step_of_every_epoch(guard, parts, monkeypatch):
    trainer = parts.trainer
    plain = guard.PlainUpdate(guard.as_transformers_has_it(trainer.policy.lm), SMALL["hidden"], trainer.config)
    before = [parameter.clone() for parameter in plain.lm.parameters()]
    experience, collected = guard.experienced(parts)
    taken = []
    monkeypatch.setattr(plain.adam, "step", lambda step=plain.adam.step: taken.append(step()))
    plain.optimise(experience, torch.arange(8).chunk(trainer.config.minibatches))
    assert len(taken) == len(trainer.optimise(experience, collected)) == 4
    assert any(not torch.equal(old, new) for old, new in zip(before, plain.lm.parameters(), strict=True))


@pytest.mark.parametrize(("bound", "status"), [(0.0, 0), (1e9, 1)])
def test_it_prints_the_ratios_and_its_status_says_whether_one_is_below_its_bound(
    guard, monkeypatch, capsys, tmp_path, bound, status
):
    monkeypatch.setattr(guard, "BOUNDS", {"sampler": bound, "update": 0.0})
    assert guard.main(["--json", str(tmp_path / "ratios.json")], guard.Sizes(**SMALL)) == status
    printed = capsys.readouterr()
    assert [line.split(":")[0] for line in printed.out.splitlines()] == ["sampler", "update"]
    assert len(printed.err.splitlines()) == status
    rows = json.loads((tmp_path / "ratios.json").read_text())
    assert [row["name"] for row in rows] == ["sampler", "update"]
    assert all(row["ratio"] == row["theirs"] / row["ours"] for row in rows)
