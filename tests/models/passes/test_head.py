"""Logprobs and entropies from hidden states: equal to a full softmax, in value and gradient, however cut."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from rlhf.models.passes import head as head_module
from rlhf.models.passes.head import autograd_logprobs, head_logprobs

VALUE = 32 + 128 + 128
"""Roundings of a logit, a sum of exponentials and an entropy, one behind the other: hidden size 32, vocabulary 128."""


@pytest.fixture(params=["kernels", "torch"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By compiled kernels where there are some, and as on a GPU."""
    if request.param == "torch":
        monkeypatch.setattr(head_module, "has_kernels", lambda _: False)


@pytest.fixture
def compare(roundings: ModuleType) -> Callable[..., None]:
    """A function that compares logprobs, entropies and the gradients of hidden states and weights."""

    def check(found: list[torch.Tensor], expected: list[torch.Tensor], dtype: torch.dtype = torch.float32) -> None:
        sizes = [float(tensor.abs().max()) for tensor in expected]
        num_tokens = len(expected[0])
        # Entropies are made of logprobs. A gradient sums over the vocabulary or over the tokens; in bfloat16 the terms
        # are rounded, and the result.
        sizes[1] = sizes[0]
        counts = [VALUE, VALUE] + ([VALUE + 128, VALUE + num_tokens] if dtype == torch.float32 else [2, 2])
        for index, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
            kind = torch.float32 if index < 2 else dtype
            factor = roundings.LOGPROB if index < 2 else 1
            atol = factor * roundings.apart(sizes[index], counts[index], kind)
            torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=0, atol=atol)

    return check


def _inputs(num: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num)
    return torch.randn(num, 32, generator=generator), torch.randint(0, 128, (num,), generator=generator)


def _reference(lm, hidden, targets, temperature):
    scores = lm.get_output_embeddings()(hidden).double()
    cap = getattr(lm.config, "final_logit_softcapping", None)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    logp = torch.log_softmax(scores / temperature, -1)
    return logp[torch.arange(len(hidden)), targets], -(logp.exp() * logp).sum(-1)


def _with_gradients(function, lm, hidden, targets, temperature):
    weight = lm.get_output_embeddings().weight
    hidden = hidden.clone().requires_grad_()
    logprobs, entropy = function(lm, hidden, targets, temperature)
    weights = torch.linspace(-1, 2, len(targets))
    loss = (logprobs * weights).sum() + (entropy * weights.square()).sum()
    return [logprobs.detach(), entropy.detach(), *torch.autograd.grad(loss, [hidden, weight])]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_equal_a_full_softmax_in_float64(tiny_model, compare, family, temperature):
    lm = tiny_model(family)
    hidden, targets = _inputs(37)

    def ours(*args):
        return head_logprobs(*args, with_entropy=True)

    expected = _with_gradients(_reference, lm, hidden, targets, temperature)
    compare(_with_gradients(ours, lm, hidden, targets, temperature), expected)


def test_the_hand_written_gradient_equals_automatic_differentiation(tiny_model, compare):
    lm = tiny_model("llama")
    hidden, targets = _inputs(50)
    found, expected = (
        _with_gradients(lambda *args, f=f: f(*args, with_entropy=True), lm, hidden, targets, 0.8)
        for f in (head_logprobs, autograd_logprobs)
    )
    compare(found, expected)


@pytest.mark.parametrize("function", [head_logprobs, autograd_logprobs])
def test_chunks_do_not_change_value_or_gradient(tiny_model, compare, monkeypatch, function):
    lm = tiny_model("llama")
    hidden, targets = _inputs(23)
    whole = _with_gradients(lambda *args: function(*args, with_entropy=True), lm, hidden, targets, 1.0)
    monkeypatch.setattr(head_module, "LOGIT_CHUNK", 7)
    monkeypatch.setattr(head_module, "SLICE", 3)
    cut = _with_gradients(lambda *args: function(*args, with_entropy=True), lm, hidden, targets, 1.0)
    compare(cut, whole)


def test_values_are_bit_for_bit_the_same_with_and_without_gradients(tiny_model):
    lm = tiny_model("llama").to(torch.bfloat16)
    hidden, targets = _inputs(600)
    hidden = hidden.bfloat16()
    with torch.no_grad():
        without, _ = head_logprobs(lm, hidden, targets, 0.9)
    assert torch.equal(without, head_logprobs(lm, hidden.requires_grad_(), targets, 0.9)[0].detach())


def test_bfloat16_gradients_equal_automatic_differentiation(tiny_model, compare):
    lm = tiny_model("llama").to(torch.bfloat16)
    hidden, targets = _inputs(40)
    found, expected = (
        _with_gradients(lambda *args, f=f: f(*args, with_entropy=True), lm, hidden.bfloat16(), targets, 0.8)
        for f in (head_logprobs, autograd_logprobs)
    )
    compare(found, expected, torch.bfloat16)


def test_bfloat16_gradients_lose_nothing_by_being_added_up_over_chunks(tiny_model, monkeypatch):
    """Against float32 on the same numbers, as root mean squares over the entries.

    An entry is rounded three times, by at most u = 2^-8 each: its terms, a chunk's sum, the sum of all. Rounding errors
    of random sign add up in quadrature. 200 chunks added up in bfloat16 would be off by 0.011.
    """
    low = tiny_model("llama").to(torch.bfloat16)
    exact = tiny_model("llama")
    exact.load_state_dict(low.state_dict())
    hidden, targets = _inputs(600)
    hidden = hidden.bfloat16()
    expected = _with_gradients(head_logprobs, exact, hidden.float(), targets, 0.8)[3]
    for chunk in (600, 300, 3):
        monkeypatch.setattr(head_module, "LOGIT_CHUNK", chunk)
        found = _with_gradients(head_logprobs, low, hidden, targets, 0.8)[3]
        assert found.dtype == torch.bfloat16
        assert float((found.float() - expected).norm()) < 3**0.5 * 2**-8 * float(expected.norm()), chunk


def test_a_second_way_back_is_refused(tiny_model):
    hidden, targets = _inputs(5)
    logprobs, _ = head_logprobs(tiny_model("llama"), hidden.requires_grad_(), targets, 1.0)
    logprobs.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward twice"):
        logprobs.sum().backward()


def test_a_frozen_head_gets_no_gradient_and_passes_it_on(tiny_model):
    lm = tiny_model("llama").requires_grad_(False)
    hidden, targets = _inputs(9)
    hidden.requires_grad_()
    head_logprobs(lm, hidden, targets, 1.0)[0].sum().backward()
    assert lm.get_output_embeddings().weight.grad is None
    assert float(hidden.grad.abs().sum()) > 0


def test_entropy_is_zero_when_not_asked_for_and_nothing_is_fine(tiny_model):
    lm = tiny_model("llama")
    assert head_logprobs(lm, *_inputs(5), 1.0)[1].tolist() == [0.0] * 5
    for function in (head_logprobs, autograd_logprobs):
        logprobs, _ = function(lm, *_inputs(0), 1.0)
        assert logprobs.shape == (0,)
        logprobs.sum().backward()


def test_a_uniform_head_has_logprob_and_entropy_of_log_v(tiny_model):
    lm = tiny_model("llama")
    torch.nn.init.zeros_(lm.get_output_embeddings().weight)
    logprobs, entropy = head_logprobs(lm, *_inputs(3), 1.0, with_entropy=True)
    # log 128 = 7 log 2 = 4.85203
    torch.testing.assert_close(logprobs, torch.full((3,), -4.852030))
    torch.testing.assert_close(entropy, torch.full((3,), 4.852030))
