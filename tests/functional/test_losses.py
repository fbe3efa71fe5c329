import math

import pytest
import torch

from rlhf.functional.losses import next_token_loss, policy_gradient_loss, policy_loss, preference_loss, value_loss

NAN, INF = float("nan"), float("inf")


def test_policy_loss_by_hand():
    old_logprobs = torch.log(torch.tensor([[0.2, 0.5, 0.4], [0.5, 0.1, 0.3]]))
    logprobs = torch.log(torch.tensor([[0.3, 0.4, 0.4], [0.2, 0.2, 0.9]]))
    advantages = torch.tensor([[2.0, 1.0, 3.0], [-1.0, -2.0, 5.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    result = policy_loss(logprobs, old_logprobs, advantages, mask, 0.2)
    # ratios: 1.5, 0.8, 1.0 | 0.4, 2.0
    # row 0: max(-3.0, -2 * 1.2) = -2.4; max(-0.8, -0.8) = -0.8; max(-3, -3) = -3
    # row 1: max(0.4, 1 * 0.8) = 0.8; max(2 * 2.0, 2 * 1.2) = 4.0
    # sum -1.4, over 5 tokens: -0.28
    assert result.loss.item() == pytest.approx(-0.28, abs=1e-6)
    # clipped is the larger at the 1st and the 4th token: 2 / 5
    assert result.clip_fraction.item() == pytest.approx(0.4)
    # mean 5.7 / 5 = 1.14; deviations 0.36, -0.34, -0.14, -0.74, 0.86
    # squares 0.1296 + 0.1156 + 0.0196 + 0.5476 + 0.7396 = 1.552; / 5 = 0.3104; root 0.5571355
    assert result.ratio_mean.item() == pytest.approx(1.14)
    assert result.ratio_std.item() == pytest.approx(0.5571355, abs=1e-6)
    # The masked ratio of 3.0 does not count.
    assert result.ratio_max.item() == pytest.approx(2.0)
    # logs 0.4054651, -0.2231436, 0, -0.9162907, 0.6931472; squares 0.1644020 + 0.0497930 + 0 + 0.8395887 + 0.4804530
    # = 1.5342367; / 2 / 5 = 0.1534237
    assert result.approx_kl.item() == pytest.approx(0.1534237, abs=1e-6)


def test_policy_loss_agrees_with_a_loop(padded):
    logprobs, old_logprobs, advantages = padded.policy_case()
    losses, ratios, num_clipped = [], [], 0
    for b in range(8):
        for t in range(6):
            if padded.MASK[b, t]:
                ratio = math.exp(logprobs[b, t].item() - old_logprobs[b, t].item())
                near = min(max(ratio, 0.8), 1.2)
                a = advantages[b, t].item()
                losses.append(-min(a * ratio, a * near))
                num_clipped += a * near < a * ratio
                ratios.append(ratio)
    result = policy_loss(logprobs, old_logprobs, advantages, padded.MASK, 0.2)
    assert result.loss.item() == pytest.approx(sum(losses) / padded.NUM_TOKENS, abs=1e-6)
    assert result.clip_fraction.item() == pytest.approx(num_clipped / padded.NUM_TOKENS)
    assert 0 < num_clipped < padded.NUM_TOKENS
    mean = sum(ratios) / padded.NUM_TOKENS
    assert result.ratio_mean.item() == pytest.approx(mean, abs=1e-6)
    assert result.ratio_std.item() == pytest.approx(
        math.sqrt(sum((r - mean) ** 2 for r in ratios) / padded.NUM_TOKENS), abs=1e-6
    )
    assert result.ratio_max.item() == pytest.approx(max(ratios), abs=1e-6)
    assert result.approx_kl.item() == pytest.approx(
        sum(math.log(r) ** 2 for r in ratios) / 2 / padded.NUM_TOKENS, abs=1e-6
    )


def test_equal_policies_have_ratio_exactly_1_and_minus_the_mean_advantage_as_loss(padded):
    logprobs, _, advantages = padded.policy_case()
    result = policy_loss(logprobs, logprobs.clone(), advantages, padded.MASK, 0.2)
    assert result.loss.item() == pytest.approx(-advantages[padded.MASK].mean().item(), abs=1e-6)
    assert (result.ratio_mean.item(), result.ratio_std.item(), result.ratio_max.item()) == (1.0, 0.0, 1.0)
    assert (result.approx_kl.item(), result.clip_fraction.item()) == (0.0, 0.0)


def test_at_equal_policies_the_gradient_is_that_of_reinforce(padded):
    logprobs, _, advantages = padded.policy_case()
    logprobs.requires_grad_()
    policy_loss(logprobs, logprobs.detach(), advantages, padded.MASK, 0.2).loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.where(padded.MASK, -advantages / padded.NUM_TOKENS, 0.0))


@pytest.mark.parametrize(
    ("advantage", "ratio", "gradient"),
    [
        # Where the policy has already moved the right way by more than 0.2, the gradient is 0.
        (1.0, 0.5, -0.5),
        (1.0, 1.0, -1.0),
        (1.0, 1.1, -1.1),
        (1.0, 1.3, 0.0),
        (-1.0, 0.7, 0.0),
        (-1.0, 0.9, 0.9),
        (-1.0, 1.0, 1.0),
        (-1.0, 1.5, 1.5),
        (0.0, 0.5, 0.0),
        (0.0, 1.5, 0.0),
    ],
)
def test_the_gradient_is_0_exactly_where_the_clip_binds(advantage, ratio, gradient):
    # d(-A * exp(x)) / dx = -A * ratio where unclipped
    logprobs = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    result = policy_loss(
        logprobs,
        torch.zeros(1, 1, dtype=torch.float64),
        torch.tensor([[advantage]], dtype=torch.float64),
        torch.tensor([[True]]),
        0.2,
    )
    result.loss.backward()
    assert logprobs.grad.item() == pytest.approx(gradient, abs=1e-12)
    assert result.clip_fraction.item() == float(advantage != 0.0 and gradient == 0.0)


def test_without_a_clip_the_surrogate_is_the_importance_weighted_advantage(padded):
    logprobs, old_logprobs, advantages = padded.policy_case()
    ratio = (logprobs - old_logprobs).exp()
    free = policy_loss(logprobs, old_logprobs, advantages, padded.MASK, None)
    assert free.loss.item() == pytest.approx(-(ratio * advantages)[padded.MASK].mean().item(), abs=1e-6)
    assert free.clip_fraction.item() == 0.0
    clipped = policy_loss(logprobs, old_logprobs, advantages, padded.MASK, 0.2)
    assert free.ratio_max == clipped.ratio_max and free.approx_kl == clipped.approx_kl
    assert clipped.loss > free.loss


def test_policy_gradient_loss_by_hand():
    logprobs = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, NAN, INF]], requires_grad=True)
    old_logprobs = torch.tensor([[-1.0, -1.0, -0.5], [-3.0, NAN, 1.0]])
    advantages = torch.tensor([[2.0, -1.0, 0.5], [1.0, NAN, INF]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    result = policy_gradient_loss(logprobs, old_logprobs, advantages, mask)
    # -(2 * -1 + -1 * -2 + 0.5 * -0.5 + 1 * -3) / 4 = 3.25 / 4
    assert result.loss.item() == pytest.approx(0.8125)
    result.loss.backward()
    # -A / 4 whatever the ratio is
    assert logprobs.grad.tolist() == [[-0.5, 0.25, -0.125], [-0.25, 0.0, 0.0]]
    # log ratios 0, -1, 0, 0: mean of squares / 2 = 1 / 8
    assert result.approx_kl.item() == pytest.approx(0.125)
    assert result.ratio_mean.item() == pytest.approx((3 + math.exp(-1)) / 4)
    assert (result.ratio_max.item(), result.clip_fraction.item()) == (1.0, 0.0)


def test_the_largest_ratio_is_that_of_a_real_token_even_when_all_have_fallen():
    old_logprobs = torch.zeros(1, 3)
    mask = torch.tensor([[True, True, False]])
    result = policy_loss(torch.log(torch.tensor([[0.5, 0.25, 1.0]])), old_logprobs, torch.ones(1, 3), mask, 0.2)
    assert result.ratio_max.item() == pytest.approx(0.5)
    assert result.ratio_mean.item() == pytest.approx(0.375)


def test_policy_statistics_carry_no_gradient_and_the_loss_does(padded):
    logprobs, old_logprobs, advantages = padded.policy_case()
    result = policy_loss(logprobs.requires_grad_(), old_logprobs, advantages, padded.MASK, 0.2)
    assert result.loss.requires_grad
    for name in ("clip_fraction", "approx_kl", "ratio_mean", "ratio_std", "ratio_max"):
        assert not getattr(result, name).requires_grad, name


def test_policy_statistics_are_means_over_own_tokens_whatever_the_divisor(padded):
    args = padded.policy_case()
    one, other = policy_loss(*args, padded.MASK, 0.2), policy_loss(*args, padded.MASK, 0.2, num_tokens=1000)
    assert other.loss.item() == pytest.approx(one.loss.item() * padded.NUM_TOKENS / 1000, rel=1e-5)
    for name in ("clip_fraction", "approx_kl", "ratio_mean", "ratio_std", "ratio_max"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_value_loss_by_hand():
    values, old_values = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.5, 1.9, 0.0]])
    returns, mask = torch.tensor([[2.0, 1.0, NAN]]), torch.tensor([[True, True, False]])
    # token 0: unclipped (1 - 2)^2 = 1; near = 0.5 + 0.2 = 0.7, (0.7 - 2)^2 = 1.69; max 1.69
    # token 1: unclipped (2 - 1)^2 = 1; near = 1.9 + 0.1 = 2.0, the same; max 1
    # 0.5 * (1.69 + 1) / 2 = 0.6725
    result = value_loss(values, old_values, returns, mask, 0.2)
    assert result.loss.item() == pytest.approx(0.6725)
    assert result.clip_fraction.item() == pytest.approx(0.5)
    # Without clip: 0.5 * (1 + 1) / 2 = 0.5
    unclipped = value_loss(values, old_values, returns, mask, None)
    assert unclipped.loss.item() == pytest.approx(0.5)
    assert unclipped.clip_fraction.item() == 0.0


@pytest.mark.parametrize("clip_range", [0.2, None])
def test_value_loss_agrees_with_a_loop(clip_range, padded):
    values, old_values, returns = padded.value_case()
    losses, num_clipped = [], 0
    for b in range(8):
        for t in range(6):
            if padded.MASK[b, t]:
                v, old, target = (x[b, t].item() for x in (values, old_values, returns))
                near = v if clip_range is None else old + min(max(v - old, -clip_range), clip_range)
                losses.append(0.5 * max((v - target) ** 2, (near - target) ** 2))
                num_clipped += (near - target) ** 2 > (v - target) ** 2
    result = value_loss(values, old_values, returns, padded.MASK, clip_range)
    assert result.loss.item() == pytest.approx(sum(losses) / padded.NUM_TOKENS, abs=1e-6)
    assert result.clip_fraction.item() == pytest.approx(num_clipped / padded.NUM_TOKENS)
    assert not result.clip_fraction.requires_grad
    assert clip_range is None or 0 < num_clipped < padded.NUM_TOKENS


@pytest.mark.parametrize(
    ("value", "target", "gradient"),
    [(0.1, 1.0, -0.9), (0.5, 1.0, 0.0), (-0.5, 1.0, -1.5), (-0.5, -1.0, 0.0), (0.5, -1.0, 1.5)],
)
def test_the_value_gradient_is_0_where_the_value_has_moved_far_enough(value, target, gradient):
    # Old value 0, clip 0.2; unclipped d(0.5 * (v - R)^2) / dv = v - R
    values = torch.tensor([[value]], requires_grad=True)
    value_loss(values, torch.zeros(1, 1), torch.tensor([[target]]), torch.tensor([[True]]), 0.2).loss.backward()
    assert values.grad.item() == pytest.approx(gradient)


def test_value_loss_at_the_returns_is_0(padded):
    values = padded.random_tensor(0)
    assert value_loss(values, values, values, padded.MASK, 0.2).loss.item() == 0.0


def test_preference_loss_by_hand():
    # differences 2 - 1 - 0 = 1 and 0 - 1 - 0.5 = -1.5
    # log(1 + exp(-1)) = 0.3132617, log(1 + exp(1.5)) = 1.7014133; mean 1.0073375
    loss = preference_loss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.5]))
    assert loss.item() == pytest.approx(1.0073375, abs=1e-6)


def test_preference_loss_agrees_with_a_loop_and_depends_on_differences_alone(padded):
    chosen, rejected = padded.random_tensor(0)[0], padded.random_tensor(1)[0]
    margins = padded.random_tensor(2)[0].abs()
    rows = zip(chosen.tolist(), rejected.tolist(), margins.tolist(), strict=True)
    slow = sum(math.log(1 + math.exp(-(c - r - m))) for c, r, m in rows) / 6
    loss = preference_loss(chosen, rejected, margins)
    assert loss.item() == pytest.approx(slow, abs=1e-6)
    torch.testing.assert_close(preference_loss(chosen + 5, rejected + 5, margins), loss)


def test_preference_loss_of_equal_scores_is_log_2_and_extreme_scores_stay_finite():
    zeros = torch.zeros(3)
    assert preference_loss(zeros, zeros, zeros).item() == pytest.approx(math.log(2))
    assert preference_loss(zeros + 1e4, zeros, zeros).item() == 0.0
    assert preference_loss(zeros - 1e4, zeros, zeros).item() == pytest.approx(1e4)


def test_next_token_loss_by_hand():
    logprobs = torch.tensor([[-1.0, -2.0, NAN], [-INF, -6.0, -0.5]])
    mask = torch.tensor([[True, True, False], [False, False, True]])
    # (1 + 2 + 0.5) / 3 = 1.1666667, over 7 tokens of the whole minibatch 0.5
    assert next_token_loss(logprobs, mask).item() == pytest.approx(1.1666667)
    assert next_token_loss(logprobs, mask, num_tokens=7).item() == pytest.approx(0.5)


@pytest.mark.parametrize("content", [NAN, INF, -INF, 100.0])
def test_padding_content_does_not_change_the_statistics(content, padded):
    expected = policy_loss(*padded.policy_case(), padded.MASK, 0.2)
    found = policy_loss(
        *(t.masked_fill(padded.MASK.logical_not(), content) for t in padded.policy_case()), padded.MASK, 0.2
    )
    for name in ("loss", "clip_fraction", "approx_kl", "ratio_mean", "ratio_std", "ratio_max"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    noisy = [t.masked_fill(padded.MASK.logical_not(), content) for t in padded.value_case()]
    assert torch.equal(
        value_loss(*noisy, padded.MASK, 0.2).clip_fraction,
        value_loss(*padded.value_case(), padded.MASK, 0.2).clip_fraction,
    )


def test_clip_ranges_that_are_not_above_0_are_refused(padded):
    with pytest.raises(ValueError, match=r"clip_range must be above 0, found 0.0"):
        policy_loss(*padded.policy_case(), padded.MASK, 0.0)
    with pytest.raises(ValueError, match=r"value clip_range must be above 0, found -0.2"):
        value_loss(*padded.value_case(), padded.MASK, -0.2)


def test_shapes_that_would_broadcast_are_refused(padded):
    logprobs, old_logprobs, advantages = padded.policy_case()
    with pytest.raises(ValueError, match=r"advantages must have the shape of logprobs \[8, 6\], found \[8, 1\]"):
        policy_loss(logprobs, old_logprobs, advantages[:, :1], padded.MASK, 0.2)
    with pytest.raises(ValueError, match=r"returns must have the shape of values \[8, 6\], found \[6\]"):
        value_loss(logprobs, logprobs, logprobs[0], padded.MASK, 0.2)
    with pytest.raises(ValueError, match=r"mask must have the shape of logprobs \[8, 6\], found \[7, 6\]"):
        next_token_loss(logprobs, padded.MASK[1:])
    with pytest.raises(ValueError, match=r"rejected_scores must have the shape of chosen_scores \[3\], found \[3, 1\]"):
        preference_loss(torch.zeros(3), torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(ValueError, match=r"mask must be torch.bool, found torch.int64"):
        policy_loss(logprobs, old_logprobs, advantages, padded.MASK.long(), 0.2)
    with pytest.raises(ValueError, match="chosen_scores must hold at least one pair, found none"):
        preference_loss(torch.zeros(0), torch.zeros(0), torch.zeros(0))
