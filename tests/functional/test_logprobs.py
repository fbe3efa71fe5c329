import math

import pytest
import torch

from rlhf.functional.logprobs import entropy, token_logprobs

INF = float("inf")


def random_logits(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype) * 3


def test_logprobs_and_entropy_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0)]]])
    # p = [1, 3] / 4: log 0.25 = -1.3862944, log 0.75 = -0.2876821
    assert token_logprobs(logits, torch.tensor([[0]]), 1.0).item() == pytest.approx(-1.3862944)
    assert token_logprobs(logits, torch.tensor([[1]]), 1.0).item() == pytest.approx(-0.2876821)
    # H = 0.25 * 1.3862944 + 0.75 * 0.2876821 = 0.3465736 + 0.2157615 = 0.5623351
    assert entropy(logits, 1.0).item() == pytest.approx(0.5623351)
    # At temperature 0.5 logits double: p = [1, 9] / 10, log 0.9 = -0.1053605
    assert token_logprobs(logits, torch.tensor([[1]]), 0.5).item() == pytest.approx(-0.1053605)
    # H = 0.1 * 2.3025851 + 0.9 * 0.1053605 = 0.2302585 + 0.0948245 = 0.3250830
    assert entropy(logits, 0.5).item() == pytest.approx(0.3250830)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 2.5])
def test_logprobs_and_entropy_agree_with_a_loop(temperature):
    logits = random_logits(2, 3, 5)
    ids = torch.tensor([[0, 4, 2], [1, 1, 3]])
    for b in range(2):
        for t in range(3):
            z = [x / temperature for x in logits[b, t].tolist()]
            total = sum(math.exp(x) for x in z)
            p = [math.exp(x) / total for x in z]
            found = token_logprobs(logits, ids, temperature)[b, t].item()
            assert found == pytest.approx(math.log(p[ids[b, t]]), abs=1e-5)
            slow_entropy = -sum(q * math.log(q) for q in p)
            assert entropy(logits, temperature)[b, t].item() == pytest.approx(slow_entropy, abs=1e-5)


def test_probabilities_of_all_tokens_add_up_to_1():
    logits = random_logits(4, 11)
    total = sum(token_logprobs(logits, torch.full((4,), v), 0.7).exp() for v in range(11))
    torch.testing.assert_close(total, torch.ones(4))


def test_entropy_is_the_mean_of_negative_logprobs_and_largest_when_uniform():
    logits = random_logits(4, 6)
    every_id = torch.arange(6).expand(4, 6)
    logprobs = token_logprobs(logits.unsqueeze(1).expand(4, 6, 6), every_id, 0.7)
    torch.testing.assert_close(entropy(logits, 0.7), -(logprobs.exp() * logprobs).sum(1))
    assert entropy(torch.full((6,), 2.0), 0.7).item() == pytest.approx(math.log(6))
    assert (entropy(logits, 0.7) < math.log(6)).all()


def test_adding_a_constant_to_the_logits_changes_nothing_and_large_logits_do_not_overflow():
    logits, ids = random_logits(3, 5), torch.tensor([0, 1, 4])
    torch.testing.assert_close(
        token_logprobs(logits + 1000, ids, 1.0), token_logprobs(logits, ids, 1.0), atol=1e-3, rtol=0
    )
    extreme = torch.tensor([[1e4, 0.0, -1e4]])
    assert token_logprobs(extreme, torch.tensor([2]), 1.0).item() == -2e4
    assert entropy(extreme, 1.0).item() == 0.0


def test_a_forbidden_token_has_probability_0_and_leaves_no_nan():
    logits = torch.tensor([[0.0, 0.0, -INF]], requires_grad=True)
    assert token_logprobs(logits, torch.tensor([2]), 1.0).item() == -INF
    assert entropy(logits, 0.5).item() == pytest.approx(math.log(2))
    (entropy(logits, 0.5) + token_logprobs(logits, torch.tensor([0]), 0.5)).sum().backward()
    # d log p(0) / dz = (onehot - p) / 0.5 = ([1, 0, 0] - [0.5, 0.5, 0]) / 0.5; the uniform entropy has gradient 0
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0, 0.0]]))


def test_logits_are_divided_into_a_new_tensor():
    logits = random_logits(2, 3, 5)
    before = logits.clone()
    token_logprobs(logits, torch.zeros(2, 3, dtype=torch.int64), 0.5), entropy(logits, 0.5)
    assert torch.equal(logits, before)


def test_half_precision_logits_are_normalised_in_float32():
    logits, ids = random_logits(2, 3, 500).to(torch.bfloat16), torch.full((2, 3), 7)
    expected = logits.to(torch.float64).div(0.7).log_softmax(-1)[..., 7]
    found = token_logprobs(logits, ids, 0.7)
    assert found.dtype == entropy(logits, 0.7).dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)


def test_no_full_table_of_logprobs_is_kept_for_the_backward_pass():
    logits, ids = random_logits(2, 3, 5).requires_grad_(), torch.zeros(2, 3, dtype=torch.int64)
    stores = set()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: stores.add(t.untyped_storage().data_ptr()) if t.shape == (2, 3, 5) else None, lambda t: t
    ):
        token_logprobs(logits, ids, 1.0)
    assert stores <= {logits.untyped_storage().data_ptr()}


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_gradients_agree_with_finite_differences(temperature):
    logits, ids = random_logits(2, 3, 5, dtype=torch.float64).requires_grad_(), torch.tensor([[0, 4, 2], [1, 1, 3]])
    assert token_logprobs(logits, ids, temperature).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda z: token_logprobs(z, ids, temperature), (logits,))
    assert torch.autograd.gradcheck(lambda z: entropy(z, temperature), (logits,))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_0_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature must be above 0, found {temperature}"):
        token_logprobs(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), temperature)
    with pytest.raises(ValueError, match=f"temperature must be above 0, found {temperature}"):
        entropy(torch.zeros(2, 3), temperature)


def test_ids_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"ids must have the shape of logits .* \[2, 3\], found \[2, 1\]"):
        token_logprobs(torch.zeros(2, 3, 5), torch.zeros(2, 1, dtype=torch.int64), 1.0)
