"""Tests of rlhf.sampling.inverse_cdf."""

import math

import pytest
import torch

from rlhf.sampling.inverse_cdf import BLOCK, draw_tokens, most_probable_tokens

LARGEST_UNIFORM = 1.0 - 2.0**-53


def _uniforms(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_the_token_is_the_one_whose_interval_holds_the_uniform_number() -> None:
    # Probabilities 1/2, 1/4, 1/4: intervals [0, 0.5), [0.5, 0.75), [0.75, 1).
    logits = torch.tensor([0.5, 0.25, 0.25]).log().expand(6, 3)
    draw = draw_tokens(logits, _uniforms(0.0, 0.49, 0.51, 0.74, 0.76, LARGEST_UNIFORM), 1.0)
    assert draw.ids.tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(draw.logprobs.exp(), torch.tensor([0.5, 0.5, 0.25, 0.25, 0.25, 0.25]))


def test_the_temperature_divides_the_logits() -> None:
    # Logits 0 and 2 ln 3 at temperature 2: probabilities 1/4 and 3/4.
    logits = torch.tensor([[0.0, 2 * math.log(3.0)]]).expand(2, 2)
    draw = draw_tokens(logits, _uniforms(0.24, 0.26), 2.0)
    assert draw.ids.tolist() == [0, 1]
    torch.testing.assert_close(draw.logprobs.exp(), torch.tensor([0.25, 0.75]))


@pytest.mark.parametrize("vocab_size", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 1000])
def test_the_two_level_search_agrees_with_one_long_sum(vocab_size: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    logits = 3 * torch.randn(200, vocab_size, generator=generator)
    uniforms = torch.rand(200, dtype=torch.float64, generator=generator)
    draw = draw_tokens(logits, uniforms, 0.7)
    probabilities = torch.softmax(logits.double() / 0.7, -1)
    upper = probabilities.cumsum(-1).gather(-1, draw.ids[:, None])[:, 0]
    lower = upper - probabilities.gather(-1, draw.ids[:, None])[:, 0]
    # Sums of at most BLOCK float32 weights: a border is known to within BLOCK * eps of the total at worst.
    slack = BLOCK * torch.finfo(torch.float32).eps
    assert bool(((lower - slack <= uniforms) & (uniforms <= upper + slack)).all())
    expected = torch.log_softmax(logits.double() / 0.7, -1).gather(-1, draw.ids[:, None])[:, 0]
    torch.testing.assert_close(draw.logprobs.double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_match_the_softmax(temperature: float) -> None:
    generator = torch.Generator().manual_seed(11)
    num_draws, vocab_size = 40_000, BLOCK + 44
    logits = torch.randn(vocab_size, generator=generator).expand(num_draws, vocab_size)
    uniforms = torch.rand(num_draws, dtype=torch.float64, generator=generator)
    counts = torch.bincount(draw_tokens(logits, uniforms, temperature).ids, minlength=vocab_size).double()
    expected = torch.softmax(logits[0].double() / temperature, -1) * num_draws
    frequent = expected >= 5  # below five expected draws the chi-square approximation does not hold
    found = torch.cat([counts[frequent], counts[~frequent].sum()[None]])
    wanted = torch.cat([expected[frequent], expected[~frequent].sum()[None]])
    chi_square = float(((found - wanted) ** 2 / wanted.clamp(min=1e-9)).sum())
    degrees = int(frequent.sum())
    # Mean `degrees`, variance 2 * degrees; four deviations are passed by chance less than once in 10,000 seeds.
    assert abs(chi_square - degrees) < 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize("vocab_size", [5, BLOCK, 4 * BLOCK + 3])
@pytest.mark.parametrize("uniform", [0.0, 0.5, LARGEST_UNIFORM])
def test_a_token_of_probability_zero_is_never_drawn(vocab_size: int, uniform: float) -> None:
    # One possible token, at every place where a search could slip to its neighbour.
    places = torch.tensor(sorted({0, 1, vocab_size // 2, vocab_size - 2, vocab_size - 1}))
    logits = torch.full((len(places), vocab_size), -torch.inf)
    logits[torch.arange(len(places)), places] = 3.0
    draw = draw_tokens(logits, _uniforms(*[uniform] * len(places)), 1.0)
    assert draw.ids.tolist() == places.tolist()
    torch.testing.assert_close(draw.logprobs, torch.zeros(len(places)))


def test_a_uniform_number_close_to_one_gives_the_last_possible_token() -> None:
    # Totals of many sizes: u * total is rounded up to the total for some of them.
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(500, 2 * BLOCK, generator=generator)
    logits[:, 300:] = -torch.inf
    draw = draw_tokens(logits, torch.full((500,), LARGEST_UNIFORM, dtype=torch.float64), 1.0)
    assert draw.ids.tolist() == [299] * 500


def test_the_many_improbable_tokens_of_a_large_vocabulary_keep_their_share() -> None:
    # Token 0 holds half; 49,151 others share the rest, 1e-5 each. A sum over all of them that is
    # rounded to float32 at every step drifts by tens of tokens; here three are allowed.
    vocab_size = 49_152
    logits = torch.zeros(1, vocab_size)
    logits[0, 0] = math.log(vocab_size - 1)
    uniforms = _uniforms(0.49, 0.6, 0.75, 0.9)
    draw = draw_tokens(logits.expand(4, -1), uniforms, 1.0)
    expected = [0.0] + [(u - 0.5) * 2 * (vocab_size - 1) for u in (0.6, 0.75, 0.9)]
    assert draw.ids.tolist() == pytest.approx(expected, abs=3)


def test_large_logits_do_not_overflow() -> None:
    draw = draw_tokens(torch.tensor([[1e30, 1e30, -1e30]]).expand(2, 3), _uniforms(0.25, 0.75), 0.1)
    assert draw.ids.tolist() == [0, 1]
    torch.testing.assert_close(draw.logprobs.exp(), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_show_in_the_logprob(bad: float) -> None:
    logits = torch.zeros(1, 5)
    logits[0, 2] = bad
    assert not bool(draw_tokens(logits, _uniforms(0.3), 1.0).logprobs.isfinite().any())


def test_bfloat16_logits_give_float32_logprobs_and_stay_unchanged() -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    before = logits.clone()
    draw = draw_tokens(logits, _uniforms(0.1, 0.2, 0.3, 0.4), 0.7)
    expected = torch.log_softmax(logits.float() / 0.7, -1).gather(-1, draw.ids[:, None])[:, 0]
    torch.testing.assert_close(draw.logprobs, expected, rtol=0, atol=2e-6)
    assert torch.equal(logits, before)


def test_float32_logits_are_not_changed_in_place() -> None:
    logits = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    draw_tokens(logits, _uniforms(0.1, 0.9), 0.7)
    assert torch.equal(logits, before)


def test_greedy_takes_the_largest_logit_with_its_logprob_at_temperature_one() -> None:
    draw = most_probable_tokens(torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]).log())
    assert draw.ids.tolist() == [1, 0]
    torch.testing.assert_close(draw.logprobs.exp(), torch.tensor([0.5, 0.6]))
