import pytest
import torch

from rlhf.functional.groups import group_normalised, rloo

# Two prompts with three responses each; lengths differ, the last row starts with a forced token.
MASK = torch.tensor(
    [
        [True, True, True],
        [True, False, False],
        [True, True, False],
        [True, True, True],
        [True, True, False],
        [False, True, True],
    ]
)
REWARDS = torch.tensor(
    [[1.0, 0.0, 2.0], [6.0, 9.0, 9.0], [1.0, 2.0, 9.0], [0.0, 0.0, 1.0], [1.0, 1.0, 9.0], [9.0, 2.0, 4.0]]
)
NUM_SAMPLES = 3


def test_rloo_by_hand():
    # returns 3, 6, 3 | 1, 2, 6; 3 - (6 + 3) / 2 = -1.5; 6 - 3 = 3; -1.5 | 1 - 4 = -3; 2 - 3.5 = -1.5; 6 - 1.5 = 4.5
    rows = [-1.5, 3.0, -1.5, -3.0, -1.5, 4.5]
    expected = torch.where(MASK, torch.tensor(rows)[:, None], 0.0)
    torch.testing.assert_close(rloo(REWARDS, MASK, 1.0, NUM_SAMPLES), expected, rtol=0, atol=0)


def test_group_normalised_by_hand():
    # 3, 6, 3: mean 4, variance 2; 1, 2, 6: mean 3, variance 14 / 3
    first, second = torch.tensor([-1.0, 2.0, -1.0]) / 2**0.5, torch.tensor([-2.0, -1.0, 3.0]) / (14 / 3) ** 0.5
    expected = torch.where(MASK, torch.cat([first, second])[:, None], 0.0)
    torch.testing.assert_close(group_normalised(REWARDS, MASK, 1.0, NUM_SAMPLES), expected)


@pytest.mark.parametrize("estimate", [rloo, group_normalised])
def test_a_prompt_does_not_see_the_others_and_its_advantages_add_up_to_0(estimate):
    together = estimate(REWARDS, MASK, 0.9, NUM_SAMPLES)
    apart = torch.cat([estimate(REWARDS[rows], MASK[rows], 0.9, NUM_SAMPLES) for rows in (slice(3), slice(3, 6))])
    assert torch.equal(together, apart)
    rows = together.abs().amax(1) * together.sum(1).sign()
    torch.testing.assert_close(rows.view(2, 3).sum(1), torch.zeros(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("estimate", [rloo, group_normalised])
def test_equal_returns_give_no_advantage(estimate):
    rewards = torch.full((6, 1), 0.1)
    mask = torch.ones(6, 1, dtype=torch.bool)
    assert estimate(rewards, mask, 1.0, 3).abs().max() < 1e-7
    assert torch.equal(group_normalised(rewards, mask, 1.0, 3), torch.zeros(6, 1))


def test_the_discount_counts_from_the_first_kept_token():
    # row 5: 2 + 0.5 * 4 = 4; row 4: 1 + 0.5 = 1.5
    advantages = rloo(REWARDS[4:], MASK[4:], 0.5, 2)
    assert advantages.tolist() == [[-2.5, -2.5, 0.0], [0.0, 2.5, 2.5]]


@pytest.mark.parametrize("content", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("estimate", [rloo, group_normalised])
def test_padding_and_forced_content_reach_nothing(estimate, content):
    noisy = REWARDS.masked_fill(MASK.logical_not(), content)
    assert torch.equal(estimate(noisy, MASK, 0.9, NUM_SAMPLES), estimate(REWARDS, MASK, 0.9, NUM_SAMPLES))


@pytest.mark.parametrize("estimate", [rloo, group_normalised])
@pytest.mark.parametrize("num_samples", [1, 4])
def test_groups_that_do_not_fit_are_refused(estimate, num_samples):
    with pytest.raises(ValueError, match=f"at least 2 and divide the rows, found {num_samples} for 6 rows"):
        estimate(REWARDS, MASK, 1.0, num_samples)
