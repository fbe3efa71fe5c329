"""The laws that every loss over tokens obeys, whatever its formula."""

import pytest
import torch

from rlhf.functional.losses import next_token_loss, policy_gradient_loss, policy_loss, value_loss

NAN, INF = float("nan"), float("inf")
LENGTHS = torch.tensor([[6], [1], [4], [2], [6], [3], [5], [1]])
MASK = torch.arange(6) < LENGTHS
NUM_TOKENS = int(LENGTHS.sum())


def random_tensor(seed, dtype=torch.float32):
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def policy_case(dtype=torch.float32):
    """Logprobs, old logprobs and advantages, far enough apart that some ratios are clipped."""
    old = -random_tensor(0, dtype).abs()
    return old + 0.3 * random_tensor(1, dtype), old, random_tensor(2, dtype)


def value_case(dtype=torch.float32):
    old = random_tensor(0, dtype)
    return old + 0.3 * random_tensor(1, dtype), old, old + random_tensor(2, dtype)


# Each entry: the tensors, of which the first is trained, and the loss as a function of (tensors, mask, num_tokens).
TOKEN_LOSSES = {
    "policy": (policy_case, lambda args, mask, n: policy_loss(*args, mask, 0.2, num_tokens=n).loss),
    "policy without clip": (policy_case, lambda args, mask, n: policy_loss(*args, mask, None, num_tokens=n).loss),
    "policy gradient": (policy_case, lambda args, mask, n: policy_gradient_loss(*args, mask, num_tokens=n).loss),
    "value": (value_case, lambda args, mask, n: value_loss(*args, mask, 0.2, num_tokens=n).loss),
    "value without clip": (value_case, lambda args, mask, n: value_loss(*args, mask, None, num_tokens=n).loss),
    "next token": (
        lambda dtype=torch.float32: (-random_tensor(0, dtype).abs(),),
        lambda args, mask, n: next_token_loss(*args, mask, num_tokens=n),
    ),
}
EVERY_TOKEN_LOSS = pytest.mark.parametrize("name", TOKEN_LOSSES)


@EVERY_TOKEN_LOSS
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_microbatches_of_any_size_give_the_loss_and_gradient_of_the_whole(name, size):
    make_case, loss_of = TOKEN_LOSSES[name]
    trained, *rest = make_case()
    whole = trained.clone().requires_grad_()
    whole_loss = loss_of((whole, *rest), MASK, None)
    whole_loss.backward()
    parts = trained.clone().requires_grad_()
    total = 0.0
    for rows in torch.arange(8).split(size):
        loss = loss_of((parts[rows], *(tensor[rows] for tensor in rest)), MASK[rows], NUM_TOKENS)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole_loss.item(), abs=1e-6)
    torch.testing.assert_close(parts.grad, whole.grad)


@EVERY_TOKEN_LOSS
def test_the_order_of_rows_and_more_padding_do_not_change_the_loss(name):
    make_case, loss_of = TOKEN_LOSSES[name]
    args = make_case()
    expected = loss_of(args, MASK, None)
    order = torch.tensor([3, 0, 7, 2, 6, 1, 5, 4])
    torch.testing.assert_close(loss_of(tuple(tensor[order] for tensor in args), MASK[order], None), expected)
    wider = tuple(torch.nn.functional.pad(tensor, (0, 5), value=9.0) for tensor in args)
    torch.testing.assert_close(loss_of(wider, torch.nn.functional.pad(MASK, (0, 5)), None), expected)


@EVERY_TOKEN_LOSS
@pytest.mark.parametrize("content", [NAN, INF, -INF, 1e30, 100.0])
def test_padding_content_changes_neither_loss_nor_gradient(name, content):
    make_case, loss_of = TOKEN_LOSSES[name]

    def loss_and_gradients(fill):
        args = [t.masked_fill(MASK.logical_not(), fill).requires_grad_() for t in make_case()]
        loss = loss_of(args, MASK, None)
        loss.backward()
        return [loss.detach(), *(t.grad for t in args)]

    for found, expected in zip(loss_and_gradients(content), loss_and_gradients(0.0), strict=True):
        assert (found is None) == (expected is None)
        assert found is None or torch.equal(found, expected)


@EVERY_TOKEN_LOSS
def test_a_microbatch_without_real_tokens_adds_nothing(name):
    make_case, loss_of = TOKEN_LOSSES[name]
    trained, *rest = make_case()
    trained.requires_grad_()
    empty = torch.zeros_like(MASK)
    for num_tokens in (None, NUM_TOKENS):
        loss = loss_of((trained, *rest), empty, num_tokens)
        loss.backward()
        assert loss.item() == 0.0
    assert torch.equal(trained.grad, torch.zeros(8, 6))


@EVERY_TOKEN_LOSS
def test_gradients_agree_with_finite_differences(name):
    make_case, loss_of = TOKEN_LOSSES[name]
    trained, *rest = make_case(torch.float64)
    loss = loss_of((trained, *rest), MASK, None)
    assert loss.dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: loss_of((x, *rest), MASK, None), (trained.requires_grad_(),))


@EVERY_TOKEN_LOSS
def test_half_precision_arguments_give_a_float32_loss(name):
    make_case, loss_of = TOKEN_LOSSES[name]
    args = tuple(tensor.to(torch.bfloat16) for tensor in make_case())
    loss = loss_of(args, MASK, None)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of(tuple(tensor.float() for tensor in args), MASK, None))


@EVERY_TOKEN_LOSS
@pytest.mark.parametrize("num_tokens", [0, -3, NAN])
def test_a_divisor_that_is_not_above_0_is_refused(name, num_tokens):
    make_case, loss_of = TOKEN_LOSSES[name]
    with pytest.raises(ValueError, match=f"num_tokens must be above 0, found {num_tokens}"):
        loss_of(make_case(), MASK, num_tokens)
