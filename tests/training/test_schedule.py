import pytest

from rlhf.training.schedule import learning_rate_factor


def factors(num_steps, warmup, shape):
    return [learning_rate_factor(step, num_steps, warmup, shape) for step in range(num_steps)]


def test_linear_by_hand():
    # 2 of 6 updates warm up: 1/3, 2/3; then 1 - 0/4, 1 - 1/4, 1 - 2/4, 1 - 3/4.
    assert factors(6, 0.25, "linear") == pytest.approx([1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25])


def test_cosine_by_hand():
    # cos of 0, 90 degrees after half of the way: 0.5 * (1 + 0); cos 45 = 0.70711, cos 135 = -0.70711.
    assert factors(4, 0.0, "cosine") == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_constant_stays_at_the_peak_after_the_warm_up():
    assert factors(4, 0.5, "constant") == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_every_update_has_a_factor_above_zero_and_at_most_one(shape, warmup, num_steps):
    assert all(0.0 < factor <= 1.0 for factor in factors(num_steps, warmup, shape))


def test_the_share_of_the_warm_up_is_not_rounded_up_by_floating_point():
    # 0.07 * 100 is 7.000000000000001: still 7 updates, so that the update with index 7 has the peak.
    assert factors(100, 0.07, "linear")[6:8] == pytest.approx([7 / 8, 1.0])
