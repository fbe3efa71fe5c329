import pytest
import torch

from rlhf.functional.advantages import (
    baseline,
    gae,
    response_return,
    reward_to_go,
    shaped_rewards,
    trajectory_return,
)

NAN, INF = float("nan"), float("inf")
# Row 0 is full, row 1 ends early, row 2 starts with two forced tokens and ends early, row 3 has one token.
MASK = torch.tensor(
    [
        [True, True, True, True, True],
        [True, True, True, False, False],
        [False, False, True, True, False],
        [True, False, False, False, False],
    ]
)


def random_tensor(seed, dtype=torch.float32):
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_shaped_rewards_by_hand():
    scores = torch.tensor([10.0, 20.0])
    token_scores = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, NAN]])
    kl = torch.tensor([[0.1, 0.2, -0.3], [0.4, 0.5, INF]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    # row 0: -0.5 * 0.1 = -0.05; -0.5 * 0.2 + 1 = 0.9; -0.5 * -0.3 + 10 = 10.15
    # row 1: -0.5 * 0.4 = -0.2; -0.5 * 0.5 + 20 = 19.75; 0
    expected = torch.tensor([[-0.05, 0.9, 10.15], [-0.2, 19.75, 0.0]])
    torch.testing.assert_close(shaped_rewards(scores, token_scores, kl, mask, 0.5), expected)


def test_shaped_rewards_agree_with_a_loop():
    scores, token_scores, kl = torch.tensor([1.0, -2.0, 3.0, 0.5]), random_tensor(0), random_tensor(1)
    slow = torch.zeros(4, 5)
    for b in range(4):
        kept = [t for t in range(5) if MASK[b, t]]
        for t in kept:
            slow[b, t] = token_scores[b, t] - 0.05 * kl[b, t]
        slow[b, kept[-1]] += scores[b]
    torch.testing.assert_close(shaped_rewards(scores, token_scores, kl, MASK, 0.05), slow)


def test_the_score_lands_on_the_last_kept_token_and_nowhere_else():
    zeros = torch.zeros(4, 5)
    rewards = shaped_rewards(torch.tensor([1.0, 2.0, 3.0, 4.0]), zeros, zeros, MASK, 0.05)
    assert rewards.nonzero().tolist() == [[0, 4], [1, 2], [2, 3], [3, 0]]
    assert rewards.sum(1).tolist() == [1.0, 2.0, 3.0, 4.0]
    # One kept token after forced ones: the count from the right stays 1 over the whole prefix.
    alone = torch.tensor([[False, False, True, False]])
    zeros = torch.zeros(1, 4)
    assert shaped_rewards(torch.tensor([5.0]), zeros, zeros, alone, 0.05).tolist() == [[0.0, 0.0, 5.0, 0.0]]


def test_a_row_without_a_kept_token_gets_no_reward():
    ones = torch.ones(1, 3)
    rewards = shaped_rewards(torch.tensor([NAN]), ones, ones, torch.zeros(1, 3, dtype=torch.bool), 1.0)
    assert torch.equal(rewards, torch.zeros(1, 3))


def test_shaped_rewards_ignore_padding_and_are_float32():
    scores, token_scores, kl = torch.ones(4), random_tensor(0).to(torch.bfloat16), random_tensor(1)
    expected = shaped_rewards(scores, token_scores, kl, MASK, 0.1)
    assert expected.dtype == torch.float32
    for content in (NAN, INF, 7.0):
        noisy = [tensor.masked_fill(MASK.logical_not(), content) for tensor in (token_scores, kl)]
        assert torch.equal(shaped_rewards(scores, *noisy, MASK, 0.1), expected)


def test_the_rungs_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 4.0, 9.0], [9.0, 2.0, 4.0, 9.0]])
    mask = torch.tensor([[True, True, True, False], [False, True, True, False]])
    # gamma 0.5. Row 0: 4; 2 + 2 = 4; 1 + 2 = 3. Row 1: 4; 2 + 2 = 4, counted from its first kept token.
    assert reward_to_go(rewards, mask, 0.5).tolist() == [[3.0, 4.0, 4.0, 0.0], [0.0, 4.0, 4.0, 0.0]]
    assert response_return(rewards, mask, 0.5).tolist() == [3.0, 4.0]
    assert trajectory_return(rewards, mask, 0.5).tolist() == [[3.0, 3.0, 3.0, 0.0], [0.0, 4.0, 4.0, 0.0]]
    values = torch.tensor([[0.5, 1.0, -1.0, NAN], [NAN, 2.0, 3.0, NAN]])
    assert baseline(rewards, values, mask, 0.5).tolist() == [[2.5, 3.0, 5.0, 0.0], [0.0, 2.0, 1.0, 0.0]]


def test_the_rungs_agree_with_loops():
    rewards, values = random_tensor(0), random_tensor(1)
    slow = {name: torch.zeros(4, 5) for name in ("whole", "to_go", "less_value")}
    for b in range(4):
        kept = [t for t in range(5) if MASK[b, t]]
        for t in kept:
            slow["whole"][b, t] = sum(0.9 ** (k - kept[0]) * rewards[b, k] for k in kept)
            slow["to_go"][b, t] = sum(0.9 ** (k - t) * rewards[b, k] for k in kept if k >= t)
            slow["less_value"][b, t] = slow["to_go"][b, t] - values[b, t]
    torch.testing.assert_close(trajectory_return(rewards, MASK, 0.9), slow["whole"])
    torch.testing.assert_close(reward_to_go(rewards, MASK, 0.9), slow["to_go"])
    torch.testing.assert_close(baseline(rewards, values, MASK, 0.9), slow["less_value"])
    torch.testing.assert_close(baseline(rewards, values, MASK, 0.9), gae(rewards, values, MASK, 0.9, 1.0))


@pytest.mark.parametrize("content", [NAN, INF, 1e30])
def test_padding_and_forced_prefixes_do_not_leak_into_the_rungs(content):
    rewards, values = random_tensor(0), random_tensor(1)
    noisy = rewards.masked_fill(MASK.logical_not(), content)
    noisy_values = values.masked_fill(MASK.logical_not(), content)
    assert torch.equal(trajectory_return(noisy, MASK, 0.9), trajectory_return(rewards, MASK, 0.9))
    assert torch.equal(reward_to_go(noisy, MASK, 0.9), reward_to_go(rewards, MASK, 0.9))
    assert torch.equal(baseline(noisy, noisy_values, MASK, 0.9), baseline(rewards, values, MASK, 0.9))


def test_a_row_without_a_kept_token_returns_nothing():
    mask = torch.zeros(1, 3, dtype=torch.bool)
    assert response_return(torch.ones(1, 3), mask, 1.0).tolist() == [0.0]
    assert trajectory_return(torch.ones(1, 3), mask, 1.0).tolist() == [[0.0] * 3]


@pytest.mark.parametrize("rung", [trajectory_return, reward_to_go, response_return])
def test_the_rungs_refuse_what_they_cannot_read(rung):
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], found 1.5"):
        rung(torch.zeros(4, 5), MASK, 1.5)
    with pytest.raises(ValueError, match=r"found a gap in row 0"):
        rung(torch.zeros(1, 3), torch.tensor([[True, False, True]]), 1.0)
    with pytest.raises(ValueError, match=r"mask must be torch.bool"):
        rung(torch.zeros(4, 5), MASK.float(), 1.0)
    with pytest.raises(ValueError, match=r"values must have the shape of rewards"):
        baseline(torch.zeros(4, 5), torch.zeros(4, 1), MASK, 1.0)


def test_gae_by_hand():
    rewards, values = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.5, 1.0, 1.5]])
    # gamma 0.5, lambda 0.5, so gamma * lambda = 0.25
    # delta_2 = 2 + 0.5 * 0   - 1.5 = 0.5      A_2 = 0.5
    # delta_1 = 0 + 0.5 * 1.5 - 1   = -0.25    A_1 = -0.25 + 0.25 * 0.5    = -0.125
    # delta_0 = 1 + 0.5 * 1   - 0.5 = 1        A_0 = 1     + 0.25 * -0.125 = 0.96875
    advantages = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), 0.5, 0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.96875, -0.125, 0.5]]))


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.8), (0.99, 0.0), (0.7, 1.0)])
def test_gae_agrees_with_the_sum_of_td_errors(gamma, gae_lambda):
    rewards, values = random_tensor(0), random_tensor(1)
    slow = torch.zeros(4, 5)
    for b in range(4):
        kept = [t for t in range(5) if MASK[b, t]]
        r, v = [rewards[b, t].item() for t in kept], [values[b, t].item() for t in kept] + [0.0]
        deltas = [r[i] + gamma * v[i + 1] - v[i] for i in range(len(kept))]
        for i, t in enumerate(kept):
            slow[b, t] = sum((gamma * gae_lambda) ** k * deltas[i + k] for k in range(len(kept) - i))
    torch.testing.assert_close(gae(rewards, values, MASK, gamma, gae_lambda), slow, atol=1e-5, rtol=1e-5)


def test_lambda_1_is_monte_carlo_minus_value():
    rewards, values = random_tensor(0), random_tensor(1)
    kept = torch.where(MASK, rewards, 0.0)
    to_go = torch.stack([sum(0.9 ** (k - t) * kept[:, k] for k in range(t, 5)) for t in range(5)], dim=1)
    expected = torch.where(MASK, to_go - values, 0.0)
    torch.testing.assert_close(gae(rewards, values, MASK, 0.9, 1.0), expected)


def test_lambda_0_is_the_td_error():
    rewards, values = random_tensor(0), random_tensor(1)
    kept = torch.where(MASK, values, 0.0)
    next_values = torch.cat([kept[:, 1:], torch.zeros(4, 1)], dim=1)
    expected = torch.where(MASK, rewards + 0.9 * next_values - values, 0.0)
    torch.testing.assert_close(gae(rewards, values, MASK, 0.9, 0.0), expected)


def test_a_perfect_critic_leaves_no_advantage():
    rewards = random_tensor(0)
    values = rewards.flip(1).cumsum(1).flip(1)
    full = torch.ones(4, 5, dtype=torch.bool)
    torch.testing.assert_close(gae(rewards, values, full, 1.0, 0.95), torch.zeros(4, 5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("content", [NAN, INF, 1e30])
def test_padding_and_forced_prefixes_do_not_leak_into_the_advantages(content):
    rewards, values = random_tensor(0), random_tensor(1)
    expected = gae(rewards, values, MASK, 0.9, 0.8)
    noisy = [tensor.masked_fill(MASK.logical_not(), content) for tensor in (rewards, values)]
    assert torch.equal(gae(*noisy, MASK, 0.9, 0.8), expected)
    assert torch.equal(expected[MASK.logical_not()], torch.zeros(int(MASK.logical_not().sum())))


def test_a_row_has_the_same_advantages_alone_shifted_and_in_a_batch():
    rewards, values = random_tensor(0), random_tensor(1)
    batch = gae(rewards, values, MASK, 0.9, 0.8)
    alone = gae(rewards[2:3, 2:4], values[2:3, 2:4], torch.ones(1, 2, dtype=torch.bool), 0.9, 0.8)
    assert torch.equal(batch[2:3, 2:4], alone)


def test_gradients_agree_with_finite_differences_and_arguments_are_left_as_they_were():
    rewards, values = random_tensor(0, torch.float64), random_tensor(1, torch.float64)
    before = rewards.clone(), values.clone()
    assert gae(rewards, values, MASK, 0.9, 0.8).dtype == torch.float64
    assert torch.equal(rewards, before[0])
    assert torch.equal(values, before[1])
    inputs = (rewards.requires_grad_(), values.requires_grad_())
    assert torch.autograd.gradcheck(lambda r, v: gae(r, v, MASK, 0.9, 0.8), inputs)


@pytest.mark.parametrize(
    ("gamma", "gae_lambda", "message"),
    [
        (1.01, 0.95, r"gamma must be in \[0, 1\], found 1.01"),
        (-0.1, 0.95, r"gamma must be in \[0, 1\], found -0.1"),
        (1.0, 95, r"gae_lambda must be in \[0, 1\], found 95"),
        (NAN, 0.95, r"gamma must be in \[0, 1\], found nan"),
    ],
)
def test_numbers_outside_0_and_1_are_refused(gamma, gae_lambda, message):
    with pytest.raises(ValueError, match=message):
        gae(random_tensor(0), random_tensor(1), MASK, gamma, gae_lambda)


def test_a_mask_with_a_gap_is_refused_by_row():
    mask = torch.tensor([[True, True, False], [True, False, True]])
    with pytest.raises(ValueError, match=r"mask must be contiguous within a row, found a gap in row 1"):
        gae(torch.zeros(2, 3), torch.zeros(2, 3), mask, 1.0, 0.95)


def test_shapes_that_differ_are_refused():
    grid, mask = torch.zeros(4, 5), MASK
    with pytest.raises(ValueError, match=r"values must have the shape of rewards \[4, 5\], found \[4, 1\]"):
        gae(grid, torch.zeros(4, 1), mask, 1.0, 0.95)
    with pytest.raises(ValueError, match=r"mask must be \[B, T\], found \[5\]"):
        gae(grid[0], grid[0], mask[0], 1.0, 0.95)
    with pytest.raises(ValueError, match=r"kl must have the shape of token_scores \[4, 5\], found \[4, 4\]"):
        shaped_rewards(torch.zeros(4), grid, torch.zeros(4, 4), mask, 0.1)
    with pytest.raises(ValueError, match=r"scores must be \[B\] and mask \[B, T\], found \[4, 1\] and \[4, 5\]"):
        shaped_rewards(torch.zeros(4, 1), grid, grid, mask, 0.1)
    with pytest.raises(ValueError, match=r"mask must be torch.bool, found torch.float32"):
        shaped_rewards(torch.zeros(4), grid, grid, mask.float(), 0.1)
