"""Tests of rlhf.ppo.experience."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.batches import Experience
from rlhf.ppo.experience import make_experience, whitened_globally
from rlhf.training.processes import Processes


@pytest.fixture
def make(tiny: ModuleType, workshop: Path) -> Any:
    def build(
        lengths: list[int], width: int, kl_coef: float = 0.1, changes: dict[str, Any] | None = None, **given: Any
    ) -> Experience:
        config = tiny.ppo_config(workshop, **({"gamma": 1.0, "gae_lambda": 1.0} | (changes or {})))
        return make_experience(tiny.hand_rollout(lengths, width, **given), kl_coef, config, Processes())

    return build


def test_rewards_advantages_and_returns_by_hand(make: Any) -> None:
    changes = {"gamma": 0.5, "gae_lambda": 0.5, "whiten_advantages": False}
    made = make(
        [2, 1], 2, scores=torch.tensor([1.0, 2.0]), changes=changes,
        logprobs=torch.tensor([[-1.0, -2.0], [-1.0, 0.0]]), ref_logprobs=torch.tensor([[-2.0, -1.0], [-1.0, 0.0]]),
        values=torch.tensor([[0.5, 0.25], [1.0, 0.0]]),
    )  # fmt: skip
    assert made.kl.tolist() == [[1.0, -1.0], [0.0, 0.0]]
    # -0.1 * 1; 1 - 0.1 * -1; the score of a response of one token lands on it
    torch.testing.assert_close(made.rewards, torch.tensor([[-0.1, 1.1], [2.0, 0.0]]))
    # A_1 = 1.1 - 0.25 = 0.85; A_0 = -0.1 + 0.5 * 0.25 - 0.5 + 0.25 * 0.85 = -0.2625; second row 2 - 1 = 1
    torch.testing.assert_close(made.advantages, torch.tensor([[-0.2625, 0.85], [1.0, 0.0]]))
    torch.testing.assert_close(made.returns, torch.tensor([[0.2375, 1.1], [2.0, 0.0]]))


def test_advantages_are_whitened_over_all_tokens_and_returns_are_not(make: Any) -> None:
    values = torch.tensor([[0.5, 0.25, 0.0], [1.0, 0.0, 0.0]])
    given = {"scores": torch.tensor([1.0, -3.0]), "values": values}
    raw = make([2, 1], 3, changes={"whiten_advantages": False}, **given)
    white = make([2, 1], 3, **given)
    # Monte Carlo: 1 - 0.5, 1 - 0.25, -3 - 1; mean -2.75 / 3
    tokens = torch.tensor([0.5, 0.75, -4.0])
    expected = (tokens - tokens.mean()) / tokens.std(unbiased=False)
    torch.testing.assert_close(white.advantages, torch.tensor([[expected[0], expected[1], 0], [expected[2], 0, 0]]))
    torch.testing.assert_close(white.returns, raw.returns, rtol=0, atol=0)
    torch.testing.assert_close(raw.returns, torch.tensor([[1.0, 1.0, 0.0], [-3.0, 0.0, 0.0]]))


def test_a_cut_response_has_its_score_on_its_last_token(make: Any) -> None:
    made = make([3, 2], 3, scores=torch.tensor([1.0, 2.0]), ended=torch.tensor([False, True]))
    assert made.rewards.tolist() == [[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]]


def test_equal_scores_give_no_advantage(make: Any) -> None:
    made = make([3, 1], 3, scores=torch.tensor([0.1, 0.1]))
    assert made.advantages.tolist() == [[0.0] * 3] * 2
    assert made.returns.isfinite().all()


@pytest.mark.parametrize(("estimator", "kl"), [("k1", 2.0), ("k2", 2.0), ("k3", 1.1353352832)])
def test_the_configured_estimator_is_used(make: Any, estimator: str, kl: float) -> None:
    made = make(
        [1],
        1,
        logprobs=torch.tensor([[-1.0]]),
        ref_logprobs=torch.tensor([[-3.0]]),
        changes={"kl_estimator": estimator},
    )
    assert made.kl.item() == pytest.approx(kl)  # d = 2: 2; 4 / 2; exp(-2) - 1 + 2


def test_padding_content_reaches_nothing(make: Any) -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    tensors = {
        name: torch.randn(2, 3, generator=torch.Generator().manual_seed(i))
        for i, name in enumerate(("logprobs", "ref_logprobs", "values"))
    }
    clean = make([2, 1], 3, scores=torch.ones(2), **{name: tensor * mask for name, tensor in tensors.items()})
    dirty = make(
        [2, 1], 3, scores=torch.ones(2), **{name: torch.where(mask, t, torch.nan) for name, t in tensors.items()}
    )
    for name in ("kl", "rewards", "advantages", "returns"):
        assert torch.equal(getattr(clean, name), getattr(dirty, name)), name


def test_forced_tokens_get_no_reward_no_advantage_and_travel_with_their_rows(make: Any) -> None:
    forced = torch.tensor([[True, False, False], [False, False, False]])
    mask = torch.tensor([[False, True, True], [True, True, False]])
    given = {
        "forced": forced,
        "response_mask": mask,
        "scores": torch.tensor([1.0, 2.0]),
        "logprobs": torch.full((2, 3), -1.0),
    }
    made = make(
        [3, 2], 3, kl_coef=1.0, changes={"whiten_advantages": False}, ref_logprobs=torch.full((2, 3), -2.0), **given
    )
    assert made.rewards.tolist() == [[0.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]
    assert made.advantages[0].tolist() == [0.0, -1.0, 0.0]
    second = made.rows(torch.tensor([1, 0]))
    assert second.rollout.forced.tolist() == forced.flip(0).tolist()
    assert second.rewards.tolist() == made.rewards.flip(0).tolist()


def test_whitening_keeps_the_places_of_tokens() -> None:
    mask = torch.tensor([[True, False], [True, True]])
    white = whitened_globally(torch.tensor([[1.0, 9.0], [3.0, 5.0]]), mask, Processes())
    scale = (8 / 3) ** -0.5  # 1, 3, 5: mean 3, variance 8 / 3
    torch.testing.assert_close(white, torch.tensor([[-2 * scale, 0.0], [0.0, 2 * scale]]))
