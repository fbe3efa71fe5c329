"""Proofs: the estimators of the KL against the enumerated KL, and the bias of each."""

import torch

from rlhf.functional.kl import exact_kl, kl_estimate
from rlhf.functional.logprobs import entropy, token_logprobs
from rlhf.oracle.exact import sequence_kl
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits, random_process
from rlhf.oracle.trajectories import enumerate_trajectories

ACCURACY = 1e-8


def cases():
    seeds = torch.Generator().manual_seed(0)
    for process in (tiny_language(4, 4, seeds).process, random_process(3, 3, 2, seeds)):
        yield process, random_logits(process, seeds), random_logits(process, seeds), enumerate_trajectories(process)


def expectation(listed, logits, ref_logits, estimator):
    """The expected sum over a trajectory."""
    estimate = kl_estimate(listed.logprobs(logits), listed.logprobs(ref_logits), estimator)
    return float(listed.probabilities(logits) @ estimate.sum(1))


def test_k1_and_k3_are_unbiased():
    for process, logits, ref_logits, listed in cases():
        exact = float(sequence_kl(process, logits, ref_logits))
        for estimator in ("k1", "k3"):
            assert abs(expectation(listed, logits, ref_logits, estimator) - exact) < ACCURACY
        assert exact > 0.1


def test_the_sum_over_the_vocabulary_at_sampled_states_is_unbiased():
    for process, logits, ref_logits, listed in cases():
        tables = exact_kl(logits, ref_logits)[listed.states]
        probabilities = listed.probabilities(logits)
        exact = probabilities @ (probabilities / listed.probabilities(ref_logits)).log()
        for found in (
            probabilities @ torch.where(listed.mask, tables, 0.0).sum(1),
            sequence_kl(process, logits, ref_logits),
        ):
            assert abs(float(found - exact)) < ACCURACY


def test_k2_is_biased_by_a_sixth_of_the_third_moment_of_a_small_log_ratio():
    """E[exp(-d)] = 1 gives E[d] = E[d^2]/2 - E[d^3]/6 + E[d^4]/24 - ..., and E[k2] - E[d] is what is left of it."""
    for process, logits, other, listed in cases():
        biases = []
        for size in (0.02, 0.01):
            ref_logits = logits + size * other
            difference = listed.logprobs(logits) - listed.logprobs(ref_logits)
            weights = listed.probabilities(logits)
            third, fourth = (float(weights @ difference.pow(power).sum(1)) for power in (3, 4))
            bias = expectation(listed, logits, ref_logits, "k2") - float(sequence_kl(process, logits, ref_logits))
            # What is left is of the fifth order.
            assert abs(bias - (third / 6 - fourth / 24)) < size**5
            biases.append(bias)
        assert abs(biases[0]) > 1e-8, "biased"
        assert 7 < biases[0] / biases[1] < 9, "half the distance, an eighth of the bias"


def test_k3_is_never_negative_and_k1_is():
    for _, logits, ref_logits, listed in cases():
        k1, k3 = (kl_estimate(listed.logprobs(logits), listed.logprobs(ref_logits), name) for name in ("k1", "k3"))
        assert bool((k3 >= 0).all()) and bool((k1 < 0).any())


def test_logprobs_and_entropy_are_those_of_the_distribution_that_samples():
    for _, logits, _, _ in cases():
        for temperature in (1.0, 0.7):
            policy = (logits / temperature).softmax(-1)
            for action in range(logits.shape[1]):
                ids = torch.full((len(logits),), action)
                found = token_logprobs(logits, ids, temperature)
                assert float((found.exp() - policy[:, action]).abs().max()) < 1e-12
            expected = -(policy * policy.log()).sum(1)
            assert float((entropy(logits, temperature) - expected).abs().max()) < 1e-12
