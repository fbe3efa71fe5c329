import numpy as np
import pytest

from rlhf.evaluation.statistics.power import smallest_effect


def test_the_smallest_effect_by_hand():
    # z(0.975) = 1.959964, z(0.8) = 0.841621: 2.801585 * 0.5 / sqrt(100)
    assert smallest_effect(100) == pytest.approx(0.14007926, rel=1e-6)
    assert smallest_effect(400) == pytest.approx(smallest_effect(100) / 2)
    assert smallest_effect(100, spread=0.25) == pytest.approx(smallest_effect(100) / 2)


def test_an_effect_of_this_size_is_found_four_times_in_five():
    generator = np.random.default_rng(0)
    effect = smallest_effect(400)
    rates = generator.binomial(400, 0.5 + effect, size=20_000) / 400
    found = np.abs(rates - 0.5) > 1.959964 * 0.5 / 20
    assert found.mean() == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    "arguments", [{"num_prompts": 0}, {"num_prompts": 9, "power": 1.0}, {"num_prompts": 9, "spread": -1}]
)
def test_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected num_prompts"):
        smallest_effect(**arguments)
