import math

import pytest
import torch

from rlhf.functional.kl import exact_kl, kl_estimate
from rlhf.functional.logprobs import token_logprobs

INF = float("inf")


def random_logits(seed, *shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [0.5, -0.2]),  # -1.0 - -1.5 = 0.5; -2.0 - -1.8 = -0.2
        ("k2", [0.125, 0.02]),  # 0.5 * 0.25; 0.5 * 0.04
        ("k3", [0.1065307, 0.0214028]),  # exp(-0.5) - 1 + 0.5 = 0.6065307 - 0.5; exp(0.2) - 1 - 0.2 = 1.2214028 - 1.2
    ],
)
def test_estimators_by_hand(estimator, expected):
    logprobs, ref_logprobs = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.8]])
    torch.testing.assert_close(kl_estimate(logprobs, ref_logprobs, estimator), torch.tensor([expected]))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_estimators_agree_with_a_loop(estimator):
    logprobs, ref_logprobs = -random_logits(0, 3, 4).abs(), -random_logits(1, 3, 4).abs()
    found = kl_estimate(logprobs, ref_logprobs, estimator)
    for b in range(3):
        for t in range(4):
            d = logprobs[b, t].item() - ref_logprobs[b, t].item()
            slow = {"k1": d, "k2": d * d / 2, "k3": math.exp(-d) - 1 + d}[estimator]
            assert found[b, t].item() == pytest.approx(slow, abs=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_equal_policies_have_a_kl_of_exactly_0(estimator):
    logprobs = random_logits(0, 3, 4)
    assert torch.equal(kl_estimate(logprobs, logprobs.clone(), estimator), torch.zeros(3, 4))


def test_k1_and_k3_are_unbiased_and_k2_nearly_so_for_close_policies():
    logits = random_logits(0, 6, dtype=torch.float64)
    ref_logits = logits + 0.1 * random_logits(1, 6, dtype=torch.float64)
    ids = torch.arange(6)
    logprobs = token_logprobs(logits.expand(6, 6), ids, 1.0)
    ref_logprobs = token_logprobs(ref_logits.expand(6, 6), ids, 1.0)
    exact = exact_kl(logits, ref_logits).item()
    expectation = {
        k: (logprobs.exp() * kl_estimate(logprobs, ref_logprobs, k)).sum().item() for k in ("k1", "k2", "k3")
    }
    assert expectation["k1"] == pytest.approx(exact, rel=1e-9)
    assert expectation["k3"] == pytest.approx(exact, rel=1e-9)
    assert expectation["k2"] == pytest.approx(exact, rel=0.1)


def test_k2_and_k3_are_never_negative_even_for_differences_near_the_rounding_error():
    difference = torch.cat([torch.linspace(-3, 3, 601), torch.tensor([1e-4, -1e-4, 3e-5, -3e-5])])
    for estimator in ("k2", "k3"):
        assert (kl_estimate(difference, torch.zeros_like(difference), estimator) >= 0).all()
    # d = 1e-3: d^2 / 2 - d^3 / 6 = 5.0e-7 - 1.67e-10; exp(-d) - 1 + d in float32 would be off by 1e-7
    small = kl_estimate(torch.tensor([1e-3]), torch.tensor([0.0]), "k3").item()
    assert small == pytest.approx(4.9983e-7, rel=1e-3)


def test_exact_kl_by_hand():
    logits, ref_logits = torch.tensor([0.0, math.log(3.0)]), torch.tensor([0.0, 0.0])
    # p = [1/4, 3/4], q = [1/2, 1/2]: 0.25 * log 0.5 + 0.75 * log 1.5 = -0.1732868 + 0.3040988 = 0.1308120
    assert exact_kl(logits, ref_logits).item() == pytest.approx(0.1308120, abs=1e-6)
    # and the other way: 0.5 * log 2 + 0.5 * log(2 / 3) = 0.3465736 - 0.2027326 = 0.1438410
    assert exact_kl(ref_logits, logits).item() == pytest.approx(0.1438410, abs=1e-6)


def test_exact_kl_agrees_with_a_loop_for_any_leading_dimensions():
    logits, ref_logits = random_logits(0, 2, 3, 4, 5), random_logits(1, 2, 3, 4, 5)
    found = exact_kl(logits, ref_logits)
    assert found.shape == (2, 3, 4)
    for index in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        weights = [math.exp(x) for x in logits[index].tolist()]
        ref_weights = [math.exp(x) for x in ref_logits[index].tolist()]
        p, q = [w / sum(weights) for w in weights], [w / sum(ref_weights) for w in ref_weights]
        slow = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert found[index].item() == pytest.approx(slow, abs=1e-5)


def test_exact_kl_is_0_for_equal_distributions_and_ignores_constants():
    logits = random_logits(0, 3, 7)
    assert torch.equal(exact_kl(logits, logits.clone()), torch.zeros(3))
    torch.testing.assert_close(exact_kl(logits, logits + 5), torch.zeros(3), atol=1e-5, rtol=0)
    assert (exact_kl(logits, random_logits(1, 3, 7)) > 0).all()


def test_exact_kl_of_forbidden_tokens():
    both = torch.tensor([0.0, 0.0, -INF], requires_grad=True)
    kl = exact_kl(both, torch.tensor([1.0, 0.0, -INF]))
    # p = [1/2, 1/2], log q = [1, 0] - log(1 + e): -log 2 - 0.5 + 1.3132617 = 0.1201145
    assert kl.item() == pytest.approx(0.1201145, abs=1e-6)
    kl.backward()
    assert both.grad.isfinite().all()
    assert exact_kl(torch.zeros(3), torch.tensor([0.0, 0.0, -INF])).item() == INF


def test_half_precision_is_widened_and_float64_is_kept():
    half = random_logits(0, 2, 3).to(torch.bfloat16)
    assert kl_estimate(half, half, "k3").dtype == exact_kl(half, half).dtype == torch.float32
    assert kl_estimate(half.double(), half.double(), "k3").dtype == torch.float64


def test_gradients_agree_with_finite_differences():
    logits = random_logits(0, 2, 3, dtype=torch.float64).requires_grad_()
    other = random_logits(1, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: exact_kl(z, other), (logits,))
    for estimator in ("k1", "k2", "k3"):
        assert torch.autograd.gradcheck(lambda z, name=estimator: kl_estimate(z, other, name), (logits,))


def test_another_estimator_and_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="estimator must be k1, k2 or k3, found 'full'"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "full")
    with pytest.raises(ValueError, match=r"ref_logprobs must have the shape of logprobs \[2, 3\], found \[2\]"):
        kl_estimate(torch.zeros(2, 3), torch.zeros(2), "k1")
    with pytest.raises(ValueError, match=r"ref_logits must have the shape of logits \[2, 3\], found \[2, 4\]"):
        exact_kl(torch.zeros(2, 3), torch.zeros(2, 4))
