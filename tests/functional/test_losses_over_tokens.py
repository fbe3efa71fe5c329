"""The laws that every loss over tokens obeys, whatever its formula."""

import pytest
import torch

from rlhf.functional.losses import next_token_loss, policy_gradient_loss, policy_loss, value_loss

NAN, INF = float("nan"), float("inf")
# Each entry: the case of padded.py, of which the first tensor is trained, and the loss as a function of
# (tensors, mask, num_tokens).
TOKEN_LOSSES = {
    "policy": ("policy_case", lambda args, mask, n: policy_loss(*args, mask, 0.2, num_tokens=n).loss),
    "policy without clip": ("policy_case", lambda args, mask, n: policy_loss(*args, mask, None, num_tokens=n).loss),
    "policy gradient": ("policy_case", lambda args, mask, n: policy_gradient_loss(*args, mask, num_tokens=n).loss),
    "value": ("value_case", lambda args, mask, n: value_loss(*args, mask, 0.2, num_tokens=n).loss),
    "value without clip": ("value_case", lambda args, mask, n: value_loss(*args, mask, None, num_tokens=n).loss),
    "next token": (
        "next_token_case",
        lambda args, mask, n: next_token_loss(*args, mask, num_tokens=n),
    ),
}


@pytest.fixture(params=TOKEN_LOSSES)
def token_loss(request, padded):
    """What makes the tensors, in a type, and the loss of them."""
    case, loss_of = TOKEN_LOSSES[request.param]
    return getattr(padded, case), loss_of


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_microbatches_of_any_size_give_the_loss_and_gradient_of_the_whole(token_loss, size, padded):
    make_case, loss_of = token_loss
    trained, *rest = make_case()
    whole = trained.clone().requires_grad_()
    whole_loss = loss_of((whole, *rest), padded.MASK, None)
    whole_loss.backward()
    parts = trained.clone().requires_grad_()
    total = 0.0
    for rows in torch.arange(8).split(size):
        loss = loss_of((parts[rows], *(tensor[rows] for tensor in rest)), padded.MASK[rows], padded.NUM_TOKENS)
        loss.backward()
        total += loss.item()
    assert total == pytest.approx(whole_loss.item(), abs=1e-6)
    torch.testing.assert_close(parts.grad, whole.grad)


def test_the_order_of_rows_and_more_padding_do_not_change_the_loss(token_loss, padded):
    make_case, loss_of = token_loss
    args = make_case()
    expected = loss_of(args, padded.MASK, None)
    order = torch.tensor([3, 0, 7, 2, 6, 1, 5, 4])
    torch.testing.assert_close(loss_of(tuple(tensor[order] for tensor in args), padded.MASK[order], None), expected)
    wider = tuple(torch.nn.functional.pad(tensor, (0, 5), value=9.0) for tensor in args)
    torch.testing.assert_close(loss_of(wider, torch.nn.functional.pad(padded.MASK, (0, 5)), None), expected)


@pytest.mark.parametrize("content", [NAN, INF, -INF, 1e30, 100.0])
def test_padding_content_changes_neither_loss_nor_gradient(token_loss, content, padded):
    make_case, loss_of = token_loss

    def loss_and_gradients(fill):
        args = [t.masked_fill(padded.MASK.logical_not(), fill).requires_grad_() for t in make_case()]
        loss = loss_of(args, padded.MASK, None)
        loss.backward()
        return [loss.detach(), *(t.grad for t in args)]

    for found, expected in zip(loss_and_gradients(content), loss_and_gradients(0.0), strict=True):
        assert (found is None) == (expected is None)
        assert found is None or torch.equal(found, expected)


def test_a_microbatch_without_real_tokens_adds_nothing(token_loss, padded):
    make_case, loss_of = token_loss
    trained, *rest = make_case()
    trained.requires_grad_()
    empty = torch.zeros_like(padded.MASK)
    for num_tokens in (None, padded.NUM_TOKENS):
        loss = loss_of((trained, *rest), empty, num_tokens)
        loss.backward()
        assert loss.item() == 0.0
    assert torch.equal(trained.grad, torch.zeros(8, 6))


def test_gradients_agree_with_finite_differences(token_loss, padded):
    make_case, loss_of = token_loss
    trained, *rest = make_case(torch.float64)
    loss = loss_of((trained, *rest), padded.MASK, None)
    assert loss.dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: loss_of((x, *rest), padded.MASK, None), (trained.requires_grad_(),))


def test_half_precision_arguments_give_a_float32_loss(token_loss, padded):
    make_case, loss_of = token_loss
    args = tuple(tensor.to(torch.bfloat16) for tensor in make_case())
    loss = loss_of(args, padded.MASK, None)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, loss_of(tuple(tensor.float() for tensor in args), padded.MASK, None))


@pytest.mark.parametrize("num_tokens", [0, -3, NAN])
def test_a_divisor_that_is_not_above_0_is_refused(token_loss, num_tokens, padded):
    make_case, loss_of = token_loss
    with pytest.raises(ValueError, match=f"num_tokens must be above 0, found {num_tokens}"):
        loss_of(make_case(), padded.MASK, num_tokens)
